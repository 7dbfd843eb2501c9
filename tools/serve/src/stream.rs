//! Streamed responses: events of the engine, written as they come by the encoder of an API. Where the client goes away the
//! body is dropped, and the call with it.

use crate::engine_thread::Update;
use crate::generation::{Generation, Tally};
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use codelsi_model::generate::Event;
use http_body::{Body as HttpBody, Frame};
use serde_json::Value;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Writes the events of a call in an API's form.
pub trait Encoder: Send + Unpin + 'static {
    /// Content type of the response.
    fn content_type(&self) -> &'static str;
    /// Writes an event of the prompt of this index.
    fn event(&mut self, prompt: usize, event: Event, tally: &Tally, out: &mut Lines);
    /// Writes what follows the last event.
    fn end(&mut self, tally: &Tally, out: &mut Lines);
    /// Writes a failure, after which nothing follows.
    fn failed(&mut self, message: &str, out: &mut Lines);
}

/// Content type of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";
/// Content type of JSON Lines.
pub const NDJSON: &str = "application/x-ndjson";

/// Bytes of a response that are not sent yet.
#[derive(Default)]
pub struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    /// Writes a server-sent event.
    pub fn event(&mut self, data: &Value) {
        self.text(&format!("data: {data}\n\n"));
    }

    /// Writes an object on a line of its own.
    pub fn line(&mut self, data: &Value) {
        self.text(&format!("{data}\n"));
    }

    /// Writes a text.
    pub fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
    }
}

struct EventBody<E> {
    generation: Generation,
    encoder: E,
    ended: bool,
}

/// Returns the streamed response of a call.
pub fn respond(generation: Generation, encoder: impl Encoder) -> Response {
    let content_type = HeaderValue::from_static(encoder.content_type());
    let mut response = Body::new(EventBody { generation, encoder, ended: false }).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Some proxies hold a stream back unless told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<E: Encoder> EventBody<E> {
    /// Writes all updates that are there; returns true if more may come.
    fn write(&mut self, out: &mut Lines, cx: &mut Context<'_>) -> bool {
        loop {
            match self.generation.poll(cx) {
                Poll::Pending => return true,
                Poll::Ready(Some(Update::Event(prompt, event))) => {
                    self.encoder.event(prompt, event, self.generation.tally(), out);
                }
                Poll::Ready(Some(Update::Failed(message))) => {
                    self.encoder.failed(&message, out);
                    return false;
                }
                Poll::Ready(None) => {
                    self.encoder.end(self.generation.tally(), out);
                    return false;
                }
            }
        }
    }
}

impl<E: Encoder> HttpBody for EventBody<E> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut out = Lines::default();
        self.ended = !self.write(&mut out, cx);
        match out.bytes.is_empty() {
            false => Poll::Ready(Some(Ok(Frame::data(out.bytes.into())))),
            true if self.ended => Poll::Ready(None),
            true => Poll::Pending,
        }
    }
}
