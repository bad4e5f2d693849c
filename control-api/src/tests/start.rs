//! First and later starts, and the data directory.

use std::os::unix::fs::PermissionsExt;

use super::both::config;
use super::installation;
use crate::{Config, Control, Database, OpenError};

#[tokio::test]
async fn the_first_start_makes_an_administrator_and_a_demo_and_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path().join("data"));
    let (control, first_run) = Control::open(config.clone()).await.unwrap();
    let first_run = first_run.unwrap();
    assert_eq!(first_run.admin.username, "admin");
    assert!(first_run.admin.password.reveal().len() >= 22);
    let demo = first_run.demo.unwrap();
    assert_eq!(demo.clients.len(), 2);
    let (node, incarnation) = (control.node(), control.incarnation());
    control.close().await;
    drop(control);

    let (control, first_run) = Control::open(config).await.unwrap();
    assert_eq!(first_run, None);
    assert_eq!(
        (control.node(), control.incarnation()),
        (node, incarnation + 1)
    );
    let domains = control
        .provision()
        .list_domains(Default::default())
        .await
        .unwrap();
    assert_eq!(domains.items[0].id, demo.domain);
}

#[tokio::test]
async fn without_demo_the_first_start_makes_an_administrator_only() {
    let at = installation().await;
    assert_eq!(at.first_run.unwrap().demo, None);
    let domains = at
        .control
        .provision()
        .list_domains(Default::default())
        .await
        .unwrap();
    assert_eq!(domains.total, 0);
}

#[tokio::test]
async fn the_open_domain_is_made_when_wanted_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let plain = Config {
        demo: false,
        ..config(folder.path())
    };
    let open = Config {
        open: true,
        ..plain.clone()
    };
    let (control, _) = Control::open(plain).await.unwrap();
    assert_eq!(control.open_domain(), None);
    drop(control);
    let (control, _) = Control::open(open.clone()).await.unwrap();
    let domain = control.open_domain().unwrap();
    drop(control);
    let (control, _) = Control::open(open).await.unwrap();
    assert_eq!(control.open_domain(), Some(domain));
    let channels = control
        .provision()
        .list_channels("open", Default::default())
        .await
        .unwrap();
    assert_eq!((channels.total, channels.items[0].open), (1, true));
    let clients = control
        .provision()
        .list_clients("open", Default::default())
        .await
        .unwrap();
    assert_eq!(clients.total, 1);
}

#[tokio::test]
async fn f_10_two_processes_cannot_share_a_data_directory() {
    let at = installation().await;
    let config = config(at.folder.path().join("data"));
    let error = Control::open(config.clone()).await.err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("choose another directory with --data-dir"),
        "{error}"
    );
    at.control.close().await;
    drop(at.control);
    assert!(Control::open(config).await.is_ok());
}

#[tokio::test]
async fn a_lost_pepper_is_told_and_not_replaced() {
    let at = installation().await;
    let data = at.folder.path().join("data");
    at.control.close().await;
    drop(at.control);
    std::fs::remove_file(data.join("pepper")).unwrap();
    let error = Control::open(config(&data)).await.err().unwrap();
    assert!(
        error.to_string().contains("restore it from a backup"),
        "{error}"
    );
    assert!(!data.join("pepper").exists());
    std::fs::write(data.join("pepper"), [7; 32]).unwrap();
    let error = Control::open(config(&data)).await.err().unwrap();
    assert!(matches!(error, OpenError::SigningKeys), "{error}");
}

#[tokio::test]
async fn nothing_in_the_data_directory_is_readable_by_others() {
    let at = installation().await;
    let data = at.folder.path().join("data");
    assert_eq!(data.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(
        data.join("pepper").metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn wrong_configuration_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = Config {
        admin_username: "a--b".into(),
        ..config(folder.path())
    };
    assert!(matches!(
        Control::open(wrong).await,
        Err(OpenError::Admin(_))
    ));
}

#[tokio::test]
async fn the_database_may_stand_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("elsewhere.db");
    let database = Database::parse(&format!("sqlite:{}", path.display()));
    let elsewhere = Config {
        database,
        ..Config::new(folder.path().join("data"))
    };
    Control::open(elsewhere).await.unwrap();
    assert!(path.exists());
}
