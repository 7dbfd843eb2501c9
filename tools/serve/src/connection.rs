//! Connections: their number, their times, and their end. A client that sends its headers byte by byte, or reads nothing, keeps
//! its connection for a limited time.

use crate::call::Connection;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep};

/// Connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// Time for the headers of a request, and between requests.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Time in which a client reads nothing of what is ready for it.
const WRITE_TIME: Duration = Duration::from_secs(60);

/// Accepts connections until `end` is true, and then waits for those that are open to finish their request.
pub async fn accept(listener: TcpListener, router: Router, mut end: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let of_connections = end.clone();
    let accepting = async {
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (router, end) = (router.clone(), of_connections.clone());
                    tokio::spawn(async move {
                        if let Ok(local) = stream.local_addr() {
                            serve(stream, Connection { peer, local }, router, end).await;
                        }
                        drop(slot);
                    });
                }
                // A connection that broke off, or no file handle: others may go on.
                Err(error) => {
                    tracing::warn!("no connection: {error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = ended(&mut end) => {}
    }
    // All slots are free once all connections are closed.
    drop(slots.acquire_many(MAX_CONNECTIONS as u32).await);
}

async fn serve(stream: TcpStream, ends: Connection, router: Router, mut end: watch::Receiver<bool>) {
    // A token is a small packet.
    drop(stream.set_nodelay(true));
    let stream = TimedStream { stream, deadline: Box::pin(tokio::time::sleep(WRITE_TIME)), waiting: false };
    let service = WithConnection { router: TowerToHyperService::new(router), ends };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ended(&mut end) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Waits until the server closes its connections.
async fn ended(end: &mut watch::Receiver<bool>) {
    drop(end.wait_for(|end| *end).await);
}

/// The router, with the connection's ends in each request.
struct WithConnection {
    router: TowerToHyperService<Router>,
    ends: Connection,
}

impl Service<Request<Incoming>> for WithConnection {
    type Response = Response<axum::body::Body>;
    type Error = std::convert::Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.ends);
        self.router.call(request)
    }
}

/// A stream whose writes fail after a time without any.
struct TimedStream {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    /// True while a write waits for the client.
    waiting: bool,
}

impl TimedStream {
    /// Returns the result of a write, or a failure once it has waited too long.
    fn timed<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.waiting = false;
            return write;
        }
        if !std::mem::replace(&mut self.waiting, true) {
            self.deadline.as_mut().reset(Instant::now() + WRITE_TIME);
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(cx, data);
        self.timed(cx, write)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed(cx, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.timed(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
