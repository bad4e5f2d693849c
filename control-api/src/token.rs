//! Access and refresh tokens: JWT signed with Ed25519.
//!
//! The algorithm is the key's, never the token's. A token of one kind is not accepted as another:
//! header type, audience and the `type` claim all say which it is.

use std::sync::{Arc, PoisonError, RwLock};

use authcache::EntityId;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::model::Time;
use crate::secret::{Pepper, Secret, random, random_id};
use crate::store::keys::{self, KeyRow};
use crate::store::{Store, StoreError};

/// Tokens longer than this are refused before a byte is decoded.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
const ACCESS_SECONDS: i64 = 3_600;
const REFRESH_SECONDS: i64 = 24 * 3_600;
/// Clocks may differ by this.
const SKEW_SECONDS: u64 = 30;
const ISSUER: &str = "turnpike";

/// Why a token, or the keys behind it, were refused.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    #[error("the token is not valid")]
    Refused,
    #[error("the signing key cannot be opened; expected the pepper with which it was sealed")]
    Sealed,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a valid access token says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) user: EntityId,
    /// Generation of the user's credential when the token was issued.
    pub(crate) credential: u64,
    /// The login that it comes from.
    pub(crate) session: EntityId,
    /// Of a refresh token: which one of the login it is.
    pub(crate) turn: u64,
    /// The domain that it was issued for, which older routes take from it.
    pub(crate) domain: Option<EntityId>,
    /// Seconds since 1970.
    pub(crate) expires_at: u64,
}

/// A pair of tokens for one login.
pub(crate) struct Issued {
    pub(crate) access: Secret,
    pub(crate) refresh: Secret,
}

/// For whom tokens are issued, and out of which login.
pub(crate) struct Login {
    pub(crate) user: EntityId,
    pub(crate) administrator: bool,
    pub(crate) verified: bool,
    pub(crate) credential: u64,
    pub(crate) session: EntityId,
    pub(crate) turn: u64,
    pub(crate) domain: Option<EntityId>,
}

/// The keys tokens are signed and checked with.
pub(crate) struct Tokens {
    keys: RwLock<Vec<Arc<Key>>>,
}

struct Key {
    kid: String,
    public: Vec<u8>,
    verify: DecodingKey,
    /// None for a retired key: it still verifies, until its last token has expired.
    sign: Option<EncodingKey>,
    created_at: Time,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Access,
    Refresh,
}

impl Kind {
    const fn number(self) -> u8 {
        match self {
            Kind::Access => 0,
            Kind::Refresh => 1,
        }
    }

    const fn header_type(self) -> &'static str {
        match self {
            Kind::Access => "at+jwt",
            Kind::Refresh => "rt+jwt",
        }
    }

    const fn audience(self) -> &'static str {
        match self {
            Kind::Access => "turnpike:access",
            Kind::Refresh => "turnpike:refresh",
        }
    }

    const fn seconds(self) -> i64 {
        match self {
            Kind::Access => ACCESS_SECONDS,
            Kind::Refresh => REFRESH_SECONDS,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    #[serde(rename = "type")]
    kind: u8,
    /// 1 for a user, 2 for a platform administrator. For clients to read; rights come from the
    /// database.
    role: u8,
    /// Generation of the user's credential.
    #[serde(rename = "gen")]
    credential: u64,
    /// Which refresh token of its login it is.
    #[serde(default)]
    turn: u64,
    /// Whether the e-mail address is verified. For clients to read.
    #[serde(default)]
    verified: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
}

impl Tokens {
    /// Reads the keys; makes the first one if there is none.
    pub(crate) async fn open(store: &Store, pepper: &Pepper) -> Result<Tokens, TokenError> {
        Ok(Tokens {
            keys: RwLock::new(read_keys(store, pepper).await?),
        })
    }

    /// Reads the keys again, from a database that is another one than before.
    pub(crate) async fn read_again(
        &self,
        store: &Store,
        pepper: &Pepper,
    ) -> Result<(), TokenError> {
        self.replace(read_keys(store, pepper).await?);
        Ok(())
    }

    /// Makes a new key to sign with; the ones before verify until their last token has expired.
    pub(crate) async fn rotate(&self, store: &Store, pepper: &Pepper) -> Result<(), TokenError> {
        let now = Time::now();
        let row = make_key(pepper, now)?;
        let mut write = store.write().await?;
        write
            .retire_keys(
                now,
                now.plus_seconds(-REFRESH_SECONDS - SKEW_SECONDS.cast_signed()),
            )
            .await?;
        write.insert_key(&row).await?;
        let kept = keys::keys(write.connection()).await?;
        write.commit().await?;
        let keys: Vec<Arc<Key>> = kept
            .into_iter()
            .map(|row| open_key(row, pepper).map(Arc::new))
            .collect::<Result<_, _>>()?;
        self.replace(keys);
        Ok(())
    }

    /// Makes a new key to sign with and forgets the ones before, whose tokens are refused from now
    /// on. Answers with the new key's time: what was signed before it is void.
    pub(crate) async fn revoke(&self, store: &Store, pepper: &Pepper) -> Result<Time, TokenError> {
        // Nothing is written meanwhile: whoever writes next finds the new key in force.
        let mut write = store.write().await?;
        let now = Time::now();
        let row = make_key(pepper, now)?;
        write.delete_keys().await?;
        write.insert_key(&row).await?;
        let before = self.replace(vec![Arc::new(open_key(row, pepper)?)]);
        // Before the commit, so that no answer under the old keys comes after it.
        if let Err(error) = write.commit().await {
            self.replace(before);
            return Err(error.into());
        }
        Ok(now)
    }

    /// The time of the oldest key: what was signed before it is void.
    pub(crate) fn since(&self) -> Option<Time> {
        self.keys().iter().map(|key| key.created_at).min()
    }

    fn replace(&self, keys: Vec<Arc<Key>>) -> Vec<Arc<Key>> {
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut known, keys)
    }

    /// The public keys as a JSON Web Key Set (RFC 7517).
    pub(crate) fn jwks(&self) -> serde_json::Value {
        let keys = self.keys();
        let keys = keys.iter().map(|key| {
            serde_json::json!({
                "kty": "OKP",
                "crv": "Ed25519",
                "alg": "EdDSA",
                "use": "sig",
                "kid": key.kid,
                "x": URL_SAFE_NO_PAD.encode(&key.public),
            })
        });
        serde_json::json!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// Issues an access and a refresh token.
    pub(crate) fn issue(&self, login: &Login, now: Time) -> Result<Issued, TokenError> {
        Ok(Issued {
            access: self.sign(Kind::Access, login, now)?,
            refresh: self.sign(Kind::Refresh, login, now)?,
        })
    }

    /// Until when a refresh token issued now is good.
    pub(crate) fn refresh_until(now: Time) -> Time {
        now.plus_seconds(REFRESH_SECONDS)
    }

    /// Checks a refresh token. Every fault gives the same answer.
    pub(crate) fn verify_refresh(&self, token: &[u8]) -> Result<Verified, TokenError> {
        self.verify(Kind::Refresh, token)
    }

    fn keys(&self) -> Vec<Arc<Key>> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    /// Checks an access token. Every fault gives the same answer.
    pub(crate) fn verify_access(&self, token: &[u8]) -> Result<Verified, TokenError> {
        self.verify(Kind::Access, token)
    }

    /// Whether bytes look like a token at all: three parts, the first an object in base64.
    pub(crate) fn is_token_like(bytes: &[u8]) -> bool {
        bytes.starts_with(b"eyJ") && bytes.iter().filter(|b| **b == b'.').count() == 2
    }

    fn sign(&self, kind: Kind, login: &Login, now: Time) -> Result<Secret, TokenError> {
        let keys = self.keys();
        let signing = keys.iter().find_map(|key| Some((key, key.sign.as_ref()?)));
        let (key, sign) = signing.ok_or(TokenError::Sealed)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(kind.header_type().to_owned());
        header.kid = Some(key.kid.clone());
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: kind.audience().to_owned(),
            sub: login.user.to_string(),
            iat: now.seconds(),
            nbf: now.seconds(),
            exp: now.seconds() + kind.seconds(),
            jti: login.session.to_string(),
            kind: kind.number(),
            role: if login.administrator { 2 } else { 1 },
            credential: login.credential,
            turn: login.turn,
            verified: login.verified,
            domain: login.domain.map(|domain| domain.to_string()),
        };
        let text = jsonwebtoken::encode(&header, &claims, sign).map_err(|_| TokenError::Refused)?;
        Ok(Secret::new(text))
    }

    fn verify(&self, kind: Kind, token: &[u8]) -> Result<Verified, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Refused);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Refused)?;
        // A token must not bring its own key or demand what is not understood.
        let foreign = header.jku.is_some()
            || header.jwk.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some()
            || header.x5t.is_some()
            || header.x5t_s256.is_some()
            || header.crit.is_some();
        if foreign || header.typ.as_deref() != Some(kind.header_type()) {
            return Err(TokenError::Refused);
        }
        let keys = self.keys();
        let key = keys
            .iter()
            .find(|key| header.kid.as_deref() == Some(&key.kid));
        let key = key.ok_or(TokenError::Refused)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = SKEW_SECONDS;
        validation.validate_nbf = true;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[kind.audience()]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
        let claims = jsonwebtoken::decode::<Claims>(token, &key.verify, &validation)
            .map_err(|_| TokenError::Refused)?
            .claims;
        let user = EntityId::from_text(&claims.sub).ok_or(TokenError::Refused)?;
        let session = EntityId::from_text(&claims.jti).ok_or(TokenError::Refused)?;
        if claims.kind != kind.number() {
            return Err(TokenError::Refused);
        }
        Ok(Verified {
            user,
            credential: claims.credential,
            session,
            turn: claims.turn,
            domain: claims.domain.as_deref().and_then(EntityId::from_text),
            expires_at: claims.exp.try_into().map_err(|_| TokenError::Refused)?,
        })
    }
}

async fn read_keys(store: &Store, pepper: &Pepper) -> Result<Vec<Arc<Key>>, TokenError> {
    let mut connection = store.read().await?;
    let mut rows = keys::keys(&mut connection).await?;
    drop(connection);
    if rows.iter().all(|row| row.retired) {
        let row = make_key(pepper, Time::now())?;
        let mut write = store.write().await?;
        write.insert_key(&row).await?;
        write.commit().await?;
        rows.insert(0, row);
    }
    rows.into_iter()
        .map(|row| open_key(row, pepper).map(Arc::new))
        .collect()
}

fn make_key(pepper: &Pepper, now: Time) -> Result<KeyRow, TokenError> {
    let pair = Ed25519KeyPair::generate().map_err(|_| TokenError::Sealed)?;
    let private = pair.to_pkcs8().map_err(|_| TokenError::Sealed)?;
    let kid = random_id().to_string();
    let sealed = seal(pepper, &kid, private.as_ref())?;
    Ok(KeyRow {
        public_key: pair.public_key().as_ref().to_vec(),
        private_key: sealed,
        retired: false,
        created_at: now,
        kid,
    })
}

fn open_key(row: KeyRow, pepper: &Pepper) -> Result<Key, TokenError> {
    let sign = if row.retired {
        None
    } else {
        Some(EncodingKey::from_ed_der(&unseal(
            pepper,
            &row.kid,
            row.private_key,
        )?))
    };
    Ok(Key {
        verify: DecodingKey::from_ed_der(&row.public_key),
        public: row.public_key,
        sign,
        created_at: row.created_at,
        kid: row.kid,
    })
}

fn sealing_key(pepper: &Pepper) -> Result<LessSafeKey, TokenError> {
    let key = pepper.digest(b"signing key", &[]);
    let key = UnboundKey::new(&AES_256_GCM, key.as_bytes()).map_err(|_| TokenError::Sealed)?;
    Ok(LessSafeKey::new(key))
}

/// Nonce, then the sealed bytes; the key's id is bound to them.
pub(crate) fn seal(pepper: &Pepper, kid: &str, private: &[u8]) -> Result<Vec<u8>, TokenError> {
    let nonce = random::<NONCE_LEN>();
    let mut bytes = private.to_vec();
    sealing_key(pepper)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(kid.as_bytes()),
            &mut bytes,
        )
        .map_err(|_| TokenError::Sealed)?;
    Ok([nonce.as_slice(), &bytes].concat())
}

pub(crate) fn unseal(
    pepper: &Pepper,
    kid: &str,
    mut sealed: Vec<u8>,
) -> Result<Vec<u8>, TokenError> {
    let Some((nonce, bytes)) = sealed.split_first_chunk_mut::<NONCE_LEN>() else {
        return Err(TokenError::Sealed);
    };
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = sealing_key(pepper)?
        .open_in_place(nonce, Aad::from(kid.as_bytes()), bytes)
        .map_err(|_| TokenError::Sealed)?;
    Ok(opened.to_vec())
}

/// Tokens of keys that end with the process, to check what the check is worth.
#[cfg(any(test, fuzzing))]
pub(crate) mod ephemeral {
    use super::*;

    /// One key.
    pub(crate) fn tokens() -> Result<Tokens, TokenError> {
        let pepper = Pepper::ephemeral();
        let key = open_key(make_key(&pepper, Time::now())?, &pepper)?;
        Ok(Tokens {
            keys: RwLock::new(vec![Arc::new(key)]),
        })
    }

    /// User 7, as session 8.
    pub(crate) fn login(administrator: bool) -> Login {
        Login {
            user: EntityId::from_u128(7),
            administrator,
            verified: false,
            credential: 3,
            session: EntityId::from_u128(8),
            turn: 1,
            domain: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ephemeral::login;
    use super::*;

    fn tokens() -> Tokens {
        super::ephemeral::tokens().unwrap()
    }

    fn user() -> EntityId {
        EntityId::from_u128(7)
    }

    fn issued(tokens: &Tokens) -> Issued {
        tokens.issue(&login(true), Time::now()).unwrap()
    }

    fn refused(tokens: &Tokens, token: &str) -> bool {
        matches!(
            tokens.verify_access(token.as_bytes()),
            Err(TokenError::Refused)
        )
    }

    #[test]
    fn an_access_token_names_its_user_and_ends_in_an_hour() {
        let tokens = tokens();
        let now = Time::now();
        let token = tokens.issue(&login(false), now).unwrap().access;
        let verified = tokens.verify_access(token.reveal().as_bytes()).unwrap();
        assert_eq!((verified.user, verified.credential), (user(), 3));
        assert_eq!(verified.expires_at, now.seconds().cast_unsigned() + 3_600);
        assert!(Tokens::is_token_like(token.reveal().as_bytes()));
    }

    #[test]
    fn t_id_2_a_refresh_token_is_no_access_token() {
        let tokens = tokens();
        let issued = issued(&tokens);
        assert!(refused(&tokens, issued.refresh.reveal()));
        assert!(
            tokens
                .verify(Kind::Refresh, issued.refresh.reveal().as_bytes())
                .is_ok()
        );
        assert!(
            tokens
                .verify(Kind::Refresh, issued.access.reveal().as_bytes())
                .is_err()
        );
    }

    #[test]
    fn t_id_1_headers_that_choose_algorithm_or_key_are_refused() {
        let tokens = tokens();
        let token = issued(&tokens).access.reveal().to_owned();
        let (_, rest) = token.split_once('.').unwrap();
        let kid = &tokens.keys()[0].kid;
        let good = format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"{kid}"}}"#);
        for header in [
            good.replace("EdDSA", "none"),
            good.replace("EdDSA", "HS256"),
            good.replace(kid.as_str(), "../../etc/passwd"),
            good.replace("at+jwt", "JWT"),
            good.replace('}', r#","jku":"https://evil.example/keys"}"#),
            good.replace('}', r#","crit":["exp"]}"#),
            good.replace('}', r#","x5u":"https://evil.example/c"}"#),
            String::new(),
        ] {
            let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(&header));
            assert!(refused(&tokens, &token), "{header}");
        }
    }

    #[test]
    fn t_id_1_altered_expired_early_foreign_and_huge_tokens_are_refused() {
        let tokens = tokens();
        let token = issued(&tokens).access.reveal().to_owned();
        let mut altered = token.clone().into_bytes();
        let middle = altered.len() / 2;
        altered[middle] = if altered[middle] == b'A' { b'B' } else { b'A' };
        assert!(tokens.verify_access(&altered).is_err());
        let at = |seconds: i64| Time::from_micros(Time::now().micros() + seconds * 1_000_000);
        for (seconds, good) in [
            (-3_600 - 60, false),
            (-3_600 + 60, true),
            (25, true),
            (60, false),
        ] {
            let token = tokens.issue(&login(false), at(seconds)).unwrap().access;
            let result = tokens.verify_access(token.reveal().as_bytes());
            assert_eq!(result.is_ok(), good, "issued {seconds} s from now");
        }
        assert!(
            refused(&self::tokens(), &token),
            "another installation's key"
        );
        assert!(refused(
            &tokens,
            &format!("{token}{}", "A".repeat(TOKEN_BYTES_MAX))
        ));
        assert!(refused(&tokens, "") && refused(&tokens, "a.b.c"));
    }

    #[test]
    fn a_sealed_key_opens_only_with_its_pepper_and_id() {
        let pepper = Pepper::ephemeral();
        let row = make_key(&pepper, Time::now()).unwrap();
        assert!(unseal(&pepper, &row.kid, row.private_key.clone()).is_ok());
        assert!(unseal(&Pepper::ephemeral(), &row.kid, row.private_key.clone()).is_err());
        assert!(unseal(&pepper, "other", row.private_key).is_err());
        assert!(unseal(&pepper, &row.kid, vec![1, 2, 3]).is_err());
    }
}
