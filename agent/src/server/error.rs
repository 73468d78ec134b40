//! Refusals as the API answers them, and bodies that are refused in the same form.

use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use sluice_client::model::ErrorBody;
use sluice_ebpf_loader::LoaderError;

use crate::event::{Refusal, RefusalCode};

pub(super) use axum::Json;

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status =
            StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, body: ErrorBody { message: refusal.message, code: refusal.code.as_str().to_owned() } }
    }
}

impl From<LoaderError> for ApiError {
    fn from(error: LoaderError) -> Self {
        let code = match &error {
            LoaderError::NoPolicy(_) => RefusalCode::NotFound,
            LoaderError::Load(_)
            | LoaderError::Program { .. }
            | LoaderError::Missing { .. }
            | LoaderError::Map { .. }
            | LoaderError::Pin { .. }
            | LoaderError::Attach { .. }
            | LoaderError::NoInterface { .. }
            | LoaderError::Events(_)
            | LoaderError::Cpus(_) => RefusalCode::Internal,
        };
        Refusal::new(code, crate::report::chain(&error)).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// The state's answer is of another kind than the question: a fault of ours.
pub(super) fn unexpected() -> ApiError {
    Refusal::new(RefusalCode::Internal, "the agent gave itself an answer it does not understand").into()
}

pub(super) async fn no_such_path(uri: Uri) -> ApiError {
    Refusal::new(RefusalCode::NotFound, format!("there is no {}", uri.path())).into()
}

pub(super) async fn no_such_method(uri: Uri) -> ApiError {
    let body =
        ErrorBody { message: format!("{} has no such method", uri.path()), code: "invalid".to_owned() };
    ApiError { status: StatusCode::METHOD_NOT_ALLOWED, body }
}

/// A JSON body, whatever its content type says.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let invalid = |message: String| ApiError::from(Refusal::new(RefusalCode::Invalid, message));
        let bytes = axum::body::Bytes::from_request(request, state)
            .await
            .map_err(|rejection| invalid(format!("the body cannot be read: {rejection}")))?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| invalid(format!("the body is not what is expected: {error}")))
    }
}
