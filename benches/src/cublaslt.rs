//! cuBLASLt as the peer of our bf16 products: same sizes, random data, flushed cache, events; a stream of its own in the
//! context that the engine uses too.

use codelsi_engine::rng::Key;
use codelsi_engine::{At, Error, Result};
use codelsi_kernels::stopwatch::FLUSH;
use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{CudaBlasLT, Matmul, MatmulConfig, sys};
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DriverError};
use half::bf16;
use std::sync::Arc;
use std::time::Duration;

/// y (T, N) = x (T, K) · w (N, K)ᵀ by cuBLASLt.
pub struct Peer {
    stream: Arc<CudaStream>,
    blas: CudaBlasLT,
    sizes: MatmulConfig,
    x: CudaSlice<bf16>,
    w: CudaSlice<bf16>,
    y: CudaSlice<bf16>,
    flush: CudaSlice<u8>,
}

/// A driver's refusal, by its number: its name may be one that the bindings do not know.
fn driver(DriverError(code): DriverError) -> Error {
    Error::new(format!("CUDA error {}", code as i32)).at("cuBLASLt")
}

/// The library's.
fn library(CublasError(status): CublasError) -> Error {
    Error::new(format!("status {}", status as i32)).at("cuBLASLt")
}

/// Whether the library can be loaded.
///
/// # Errors
/// When it cannot: what to do.
pub fn present() -> Result<()> {
    // SAFETY: loads the library, whose initializers are sound.
    match unsafe { sys::is_culib_present() } {
        true => Ok(()),
        false => Err(Error::new(
            "cuBLASLt is absent: no libcublasLt.so or libcublasLt.so.12 in the loader's path (LD_LIBRARY_PATH)",
        )),
    }
}

impl Peer {
    /// The product of random matrices, computed once and compared with the host's sums at two places.
    ///
    /// # Errors
    /// When the library is absent or refuses, or its result is another.
    pub fn new([t, n, k]: [usize; 3]) -> Result<Self> {
        present()?;
        let random = |elements: usize, site| -> Vec<bf16> {
            let key = Key { seed: 1, step: 0, site };
            (0..elements).map(|i| bf16::from_f32(key.normal((i >> 16) as u32, i as u32 & 0xffff))).collect()
        };
        let (x, w) = (random(t * k, 0), random(n * k, 1));
        let mut peer = Peer::with(&x, &w, [t, n, k])?;
        peer.time()?;
        let y = peer.stream.clone_dtoh(&peer.y).map_err(driver)?;
        for (row, column) in [(0, n - 1), (t - 1, 0)] {
            let pairs = x[row * k..][..k].iter().zip(&w[column * k..][..k]);
            let truth: f64 = pairs.map(|(x, w)| x.to_f64() * w.to_f64()).sum();
            let error = (y[row * n + column].to_f64() - truth).abs();
            if error.is_nan() || error > 0.02 * (k as f64).sqrt() {
                let message = format!("element ({row}, {column}) is off by {error}");
                return Err(Error::new(message)).at("cuBLASLt");
            }
        }
        Ok(peer)
    }

    fn with(x: &[bf16], w: &[bf16], [t, n, k]: [usize; 3]) -> Result<Self> {
        let context = CudaContext::new(0).map_err(driver)?;
        // SAFETY: one stream does all the work, in order.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(driver)?;
        // Its matrices are column-major: yᵀ (N, T) = w · xᵀ, w read as a transposed (K, N).
        let sizes = MatmulConfig {
            transa: true,
            transb: false,
            transc: false,
            m: n as u64,
            n: t as u64,
            k: k as u64,
            alpha: 1.0,
            lda: k as i64,
            ldb: k as i64,
            beta: 0.0,
            ldc: n as i64,
            stride_a: None,
            stride_b: None,
            stride_c: None,
            stride_bias: None,
            batch_size: None,
        };
        Ok(Peer {
            blas: CudaBlasLT::new(stream.clone()).map_err(library)?,
            x: stream.clone_htod(x).map_err(driver)?,
            w: stream.clone_htod(w).map_err(driver)?,
            y: stream.alloc_zeros(t * n).map_err(driver)?,
            flush: stream.alloc_zeros(FLUSH).map_err(driver)?,
            stream,
            sizes,
        })
    }

    /// One product.
    ///
    /// # Errors
    /// The library's.
    pub fn time(&mut self) -> Result<Duration> {
        let Peer { stream, blas, sizes, x, w, y, flush } = self;
        stream.memset_zeros(flush).map_err(driver)?;
        let start = stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(driver)?;
        // SAFETY: the matrices have the sizes that the configuration says.
        unsafe { blas.matmul(*sizes, w, x, y, None, None) }.map_err(library)?;
        let end = stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(driver)?;
        Ok(Duration::from_secs_f64(start.elapsed_ms(&end).map_err(driver)? as f64 / 1e3))
    }
}
