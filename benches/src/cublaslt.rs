//! cuBLASLt for comparison with our bf16 products: same sizes, random data, flushed cache, CUDA events; on its own
//! stream in the engine's context.

use codelsi_engine::rng::RngKey;
use codelsi_engine::{At, Error, Result};
use codelsi_kernels::stopwatch::L2_FLUSH_BYTES;
use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::{CudaBlasLT, Matmul, MatmulConfig, sys};
use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DriverError};
use half::bf16;
use std::sync::Arc;
use std::time::Duration;

/// The product y (T, N) = x (T, K) · w (N, K)ᵀ by cuBLASLt.
pub struct CublasLtProduct {
    stream: Arc<CudaStream>,
    blas: CudaBlasLT,
    sizes: MatmulConfig,
    x: CudaSlice<bf16>,
    w: CudaSlice<bf16>,
    y: CudaSlice<bf16>,
    flush: CudaSlice<u8>,
}

/// Converts an error of the driver, by its number: the bindings may not know its name.
fn driver_error(DriverError(code): DriverError) -> Error {
    Error::new(format!("CUDA error {}", code as i32)).at("cuBLASLt")
}

/// Converts an error of the library.
fn library_error(CublasError(status): CublasError) -> Error {
    Error::new(format!("status {}", status as i32)).at("cuBLASLt")
}

/// Checks that the library can be loaded.
///
/// # Errors
/// When it cannot; the message says what to do.
pub fn check_present() -> Result<()> {
    // SAFETY: loads the library, whose initializers are sound.
    match unsafe { sys::is_culib_present() } {
        true => Ok(()),
        false => Err(Error::new(
            "cuBLASLt is absent: no libcublasLt.so or libcublasLt.so.12 in the loader's path (LD_LIBRARY_PATH)",
        )),
    }
}

impl CublasLtProduct {
    /// Prepares random matrices and computes their product once; two of its elements are compared with sums on the
    /// host.
    ///
    /// # Errors
    /// When the library is absent or fails, or its result is wrong.
    pub fn new([t, n, k]: [usize; 3]) -> Result<Self> {
        check_present()?;
        let random = |elements: usize, site| -> Vec<bf16> {
            let key = RngKey { seed: 1, step: 0, site };
            (0..elements).map(|i| bf16::from_f32(key.normal((i >> 16) as u32, i as u32 & 0xffff))).collect()
        };
        let (x, w) = (random(t * k, 0), random(n * k, 1));
        let mut product = CublasLtProduct::with(&x, &w, [t, n, k])?;
        product.time()?;
        let y = product.stream.clone_dtoh(&product.y).map_err(driver_error)?;
        for (row, column) in [(0, n - 1), (t - 1, 0)] {
            let pairs = x[row * k..][..k].iter().zip(&w[column * k..][..k]);
            let truth: f64 = pairs.map(|(x, w)| x.to_f64() * w.to_f64()).sum();
            let error = (y[row * n + column].to_f64() - truth).abs();
            if error.is_nan() || error > 0.02 * (k as f64).sqrt() {
                let message = format!("element ({row}, {column}) is off by {error}");
                return Err(Error::new(message)).at("cuBLASLt");
            }
        }
        Ok(product)
    }

    fn with(x: &[bf16], w: &[bf16], [t, n, k]: [usize; 3]) -> Result<Self> {
        let context = CudaContext::new(0).map_err(driver_error)?;
        // SAFETY: one stream does all the work, in order.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(driver_error)?;
        // cuBLAS is column-major: yᵀ (N, T) = w · xᵀ, with w read as a transposed (K, N).
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
        Ok(CublasLtProduct {
            blas: CudaBlasLT::new(stream.clone()).map_err(library_error)?,
            x: stream.clone_htod(x).map_err(driver_error)?,
            w: stream.clone_htod(w).map_err(driver_error)?,
            y: stream.alloc_zeros(t * n).map_err(driver_error)?,
            flush: stream.alloc_zeros(L2_FLUSH_BYTES).map_err(driver_error)?,
            stream,
            sizes,
        })
    }

    /// Times one product.
    ///
    /// # Errors
    /// When the library fails.
    pub fn time(&mut self) -> Result<Duration> {
        let CublasLtProduct { stream, blas, sizes, x, w, y, flush } = self;
        stream.memset_zeros(flush).map_err(driver_error)?;
        let start = stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(driver_error)?;
        // SAFETY: the matrices have the sizes that the configuration states.
        unsafe { blas.matmul(*sizes, w, x, y, None, None) }.map_err(library_error)?;
        let end = stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(driver_error)?;
        Ok(Duration::from_secs_f64(start.elapsed_ms(&end).map_err(driver_error)? as f64 / 1e3))
    }
}
