//! As whom a load connects, and what was made for it.

use ::loadtest::{Admin, Control, Endpoint, Fleet, Login, Need, Provisioned, Ready, Target};
use anyhow::{Context, bail};

use super::arguments::Broker;
use super::show::Watch;

/// A target, with what has to be removed at the end.
pub(super) struct Place {
    target: Option<Target>,
    made: Option<(Provisioned, Control)>,
    keep: bool,
}

impl Place {
    /// Finds out as whom to connect, and makes what is to be made.
    ///
    /// # Errors
    /// Files cannot be used, or the control side refuses.
    pub(super) fn take(
        broker: &Broker,
        need: impl FnOnce() -> anyhow::Result<Need>,
    ) -> anyhow::Result<Place> {
        if broker.provision {
            return Place::provision(broker, &need()?);
        }
        let endpoint = broker.endpoint()?;
        let target = if let Some(file) = &broker.clients_file {
            Fleet::read(file)?.target(&need()?, endpoint)?
        } else if let Some(file) = &broker.credentials {
            Target::demo(file, endpoint)?
        } else {
            login(broker, Target::anonymous(endpoint, &broker.topic_prefix))
        };
        Ok(Place {
            target: Some(target),
            made: None,
            keep: false,
        })
    }

    /// Makes a domain with what is needed.
    ///
    /// # Errors
    /// Nobody said where the control API is, or it refuses.
    pub(super) fn provision(broker: &Broker, need: &Need) -> anyhow::Result<Place> {
        let endpoint: Endpoint = broker.endpoint()?;
        let need = match broker.channels {
            Some(most) => need.clone().with_channels(most),
            None => need.clone(),
        };
        let mut control = log_in(broker)?;
        let watch = Watch::new(broker.quiet);
        let provisioned = ::loadtest::provision(&mut control, &need, &mut |step| watch.step(step))?;
        let target = provisioned.target(endpoint);
        if let Some(file) = &broker.save_clients {
            Fleet::new(&need, &target).write(file)?;
        }
        Ok(Place {
            target: Some(target),
            made: Some((provisioned, control)),
            keep: broker.save_clients.is_some(),
        })
    }

    /// The broker with those who connect. There is one.
    pub(super) fn target(&mut self) -> anyhow::Result<Target> {
        self.target.take().context("the target was taken before")
    }

    /// Hands out what was made, and the way to the control side.
    pub(super) fn controlled<T>(
        &mut self,
        what: impl FnOnce(&Provisioned, &mut Control) -> Result<T, ::loadtest::Error>,
    ) -> anyhow::Result<T> {
        let Some((provisioned, control)) = &mut self.made else {
            bail!("nothing was provisioned");
        };
        Ok(what(provisioned, control)?)
    }

    /// Removes what was made, unless it is to be kept.
    pub(super) fn leave(mut self) {
        if let Some((provisioned, control)) = self.made.as_mut().filter(|_| !self.keep)
            && let Err(error) = provisioned.remove(control)
        {
            eprintln!(
                "the domain {} could not be removed: {error}",
                provisioned.domain
            );
        }
    }
}

fn login(broker: &Broker, mut target: Target) -> Target {
    if let Some(username) = &broker.username {
        target.logins.push(Login {
            username: username.clone(),
            password: broker.password.clone().unwrap_or_default(),
            client_id: None,
        });
    }
    target
}

fn log_in(broker: &Broker) -> anyhow::Result<Control> {
    let ready = broker.credentials.as_deref().map(Ready::read).transpose()?;
    let (told_api, told_admin) = match ready {
        Some(ready) => (Some(ready.listeners.api), ready.admin),
        None => (None, None),
    };
    let Some(address) = broker.api.clone().or(told_api) else {
        bail!(
            "a domain of its own is made over the control API: --api HOST:PORT or https://HOST:PORT, or --credentials FILE \
             with the line that `turnpike serve --json` printed at its first start"
        );
    };
    let admin = match (&broker.admin_password_file, told_admin) {
        (Some(file), _) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            Admin {
                username: broker.admin.clone(),
                password: text.trim_end_matches(['\r', '\n']).to_owned(),
            }
        }
        (None, Some(admin)) => admin,
        (None, None) => bail!(
            "the control API asks for an administrator: --admin NAME with --admin-password-file \
             FILE, or --credentials FILE of a first start, which names it"
        ),
    };
    Ok(Control::log_in(&address, admin, broker.api_ca.as_deref())?)
}
