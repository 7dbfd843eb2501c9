//! Batch invariance: a row's bits are the same whether 1, 7 or 64 rows ride along, on the CPU and on the software GPU.

mod common;

use codelsi_engine::{Ctx, DType, Device};
use codelsi_kernels::check::{BATCH, find};
use codelsi_kernels::spec::{Invariance, RowBatch};

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it_on_the_cpu() {
    common::hold_batch_invariance(&common::ops(), &Device::cpu());
}

#[test]
fn a_row_does_not_depend_on_the_rows_beside_it_on_the_software_gpu() {
    if let Some(device) = common::software_gpu() {
        common::hold_batch_invariance(&common::ops(), &device);
    }
}

#[test]
fn the_cpu_and_the_software_gpu_draw_the_same_tokens() {
    if !common::is_selected("sample") {
        return;
    }
    let Some(device) = common::software_gpu() else { return };
    let Invariance::Rows([sample]) = find("sample").unwrap().invariance else { panic!("one call") };
    let tokens = |device: &Device| {
        let cx = Ctx::inference(device);
        let drawn = (sample.run)(&RowBatch { cx: &cx, dtype: DType::F32, rows: 0..BATCH }).unwrap();
        drawn.to_vec::<i32>().unwrap().chunks(2).map(|choice| choice[0]).collect::<Vec<_>>()
    };
    assert_eq!(tokens(&Device::cpu()), tokens(&device));
}
