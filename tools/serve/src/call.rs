//! The body of a request, read within limits of size and time.

use crate::error::ApiError;
use crate::fields::Fields;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use http_body::Body as HttpBody;
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

/// Bytes of a body.
const MAX_BODY: usize = 16 << 20;
/// Bytes that are read and thrown away before a larger body is refused: a client that is still sending would not see the
/// refusal.
const MAX_DISCARDED: u64 = 64 << 20;
/// Time for a body to come.
const BODY_TIME: Duration = Duration::from_secs(30);

/// The two ends of a connection; the server puts it into each request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// A request with a JSON object.
pub struct Call {
    pub fields: Fields,
    /// The client, for the engine's limits: all of an address are one.
    pub client: u64,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let client = request.extensions().get::<Connection>().map_or(0, |c| client_of(c.peer.ip()));
        let read = tokio::time::timeout(BODY_TIME, read(request.into_body()));
        let late =
            |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time; send it at once");
        let body = read.await.map_err(late)??;
        Ok(Call { fields: Fields::parse(&body)?, client })
    }
}

fn client_of(address: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    hasher.finish()
}

async fn read(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the body exceeds {} MiB; send less", MAX_BODY >> 20);
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    };
    if body.size_hint().lower() > MAX_DISCARDED {
        return Err(too_large());
    }
    let (mut bytes, mut length) = (Vec::new(), 0);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|e| ApiError::invalid(format!("the body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len() as u64;
        match length {
            length if length > MAX_DISCARDED => return Err(too_large()),
            length if length > MAX_BODY as u64 => bytes = Vec::new(),
            _ => bytes.extend_from_slice(&data),
        }
    }
    if length > MAX_BODY as u64 { Err(too_large()) } else { Ok(bytes) }
}
