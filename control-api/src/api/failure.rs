//! An error as every route answers it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::identify::Trouble;
use crate::name::Invalid;
use crate::password::Busy;
use crate::provision::{Fault, ProvisionError};
use crate::rates::Spent;
use crate::store::StoreError;

/// What is wrong and what is expected, with the status that says whose fault it is.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) detail: String,
    /// When to come again, in seconds, if it is not the usual time.
    pub(crate) retry_seconds: Option<u64>,
}

impl Failure {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Failure {
        Failure {
            status,
            message: message.into(),
            detail: String::new(),
            retry_seconds: None,
        }
    }

    pub(crate) fn with_detail(self, detail: impl ToString) -> Failure {
        Failure {
            detail: detail.to_string(),
            ..self
        }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::UNAUTHORIZED, message)
    }

    /// The same for everything that is not permitted, so that it tells nothing of what exists.
    pub(crate) fn forbidden() -> Failure {
        Failure::new(StatusCode::FORBIDDEN, "not permitted")
    }

    pub(crate) fn not_found(kind: &str) -> Failure {
        Failure::new(StatusCode::NOT_FOUND, format!("{kind} does not exist"))
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn unavailable() -> Failure {
        Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the request cannot be carried out now; try again",
        )
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.detail, "message": self.message });
        let mut response = (self.status, Json(body)).into_response();
        let seconds = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => 1,
            StatusCode::TOO_MANY_REQUESTS => self.retry_seconds.unwrap_or(60),
            _ => return response,
        };
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        response
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        if error.is_unique_violation() {
            return Failure::conflict("another one has this id, name or address");
        }
        tracing::error!(%error, "a request could not be carried out");
        Failure::unavailable()
    }
}

impl From<Spent> for Failure {
    fn from(spent: Spent) -> Failure {
        let seconds = spent.seconds;
        let message = format!("too many of these requests; expected the next one in {seconds} s");
        Failure {
            retry_seconds: Some(seconds),
            ..Failure::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
    }
}

impl From<Busy> for Failure {
    fn from(error: Busy) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Store(error) => error.into(),
            Trouble::Busy(error) => error.into(),
        }
    }
}

impl From<Invalid> for Failure {
    fn from(error: Invalid) -> Failure {
        Failure::bad(error.to_string())
    }
}

impl From<ProvisionError> for Failure {
    fn from(error: ProvisionError) -> Failure {
        match (error.fault(), error) {
            (_, ProvisionError::Store(error)) => error.into(),
            (Fault::Invalid, error) => Failure::bad(error.to_string()),
            (Fault::NotFound, error) => Failure::new(StatusCode::NOT_FOUND, error.to_string()),
            (Fault::Conflict, error) => Failure::conflict(error.to_string()),
            (Fault::Unavailable, _) => Failure::unavailable(),
        }
    }
}
