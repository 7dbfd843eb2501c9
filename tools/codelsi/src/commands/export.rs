//! `codelsi export`: a model or an adapter as a GGUF file, for llama.cpp and Ollama.

use crate::args::{folder, help};
use crate::json::print_json;
use clap::{Args, ValueEnum};
use codelsi_engine::{At, Error, Result, RunLock};
use codelsi_experiment::output::{Output, note};
use codelsi_model::adapter::Adapter;
use codelsi_model::checkpoint::Checkpoint;
use codelsi_model::config::ModelConfig;
use codelsi_model::gguf::{
    Exported, TensorType, check_modelfile, export_adapter, export_model, write_adapter_modelfile,
    write_modelfile,
};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Write a model or an adapter as a GGUF file, for llama.cpp and Ollama.
#[derive(Args)]
pub struct ExportArgs {
    /// GGUF file for the model, with the adapter merged if one is given; a Modelfile for Ollama is written beside it.
    #[arg(long, value_name = "FILE", required_unless_present = "gguf_adapter", value_parser = gguf_file)]
    gguf: Option<PathBuf>,
    /// GGUF file for the adapter alone; a Modelfile is written beside it.
    #[arg(long, value_name = "FILE", conflicts_with = "gguf", requires = "adapter", value_parser = gguf_file)]
    gguf_adapter: Option<PathBuf>,
    /// Type of the matrices; vectors stay f32 [default: that of the checkpoint; f32 for an adapter alone]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    tensor_type: Option<TypeArg>,
    #[arg(long, help = help::MODEL, value_name = "DIR", value_parser = folder())]
    model: PathBuf,
    #[arg(long, help = help::ADAPTER, value_name = "DIR", value_parser = folder())]
    adapter: Option<PathBuf>,
    #[arg(long, help = help::JSON)]
    json: bool,
}

/// The values of `--type`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum TypeArg {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl From<TypeArg> for TensorType {
    fn from(arg: TypeArg) -> Self {
        match arg {
            TypeArg::F32 => TensorType::F32,
            TypeArg::F16 => TensorType::F16,
            TypeArg::Bf16 => TensorType::BF16,
            TypeArg::Q8_0 => TensorType::Q8_0,
        }
    }
}

/// Parses the name of a file to write.
fn gguf_file(name: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(name);
    match path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) {
        true => Ok(path),
        false => Err("the name must end with .gguf".into()),
    }
}

/// Runs the command.
pub fn run(args: &ExportArgs, out: &Output) -> Result<()> {
    let to = args.gguf.as_ref().or(args.gguf_adapter.as_ref());
    let to = to.ok_or_else(|| Error::new("give --gguf or --gguf-adapter"))?;
    let _lock = RunLock::beside(to)?;
    check_modelfile(to)?;
    let (exported, modelfile) = match args.gguf_adapter {
        Some(_) => adapter_alone(args, to, out)?,
        None => model(args, to, out)?,
    };
    exported.notes.iter().for_each(|line| note(&format!("note: {line}")));
    let Exported { tensor_type, tensors, bytes, .. } = exported;
    if !args.json {
        let megabytes = bytes as f64 / 1e6;
        println!("{}: {tensors} tensors, {megabytes:.1} MB, {}", to.display(), tensor_type.name());
        println!("{}", modelfile.display());
    }
    let summary = json!({
        "out": to, "modelfile": modelfile, "type": tensor_type.name(), "tensors": tensors, "bytes": bytes,
    });
    print_json(args.json, &summary);
    Ok(())
}

/// Writes the model.
fn model(args: &ExportArgs, to: &Path, out: &Output) -> Result<(Exported, PathBuf)> {
    let base = Checkpoint::open(&args.model)?;
    let adapter = args.adapter.as_ref().map(|adapter| Adapter::load(adapter, base.config())).transpose()?;
    if let (Some(values), Some(path)) = (&adapter, &args.adapter) {
        values.config.method.check_mergeable().at(path.display().to_string())?;
    }
    let kind = args.tensor_type.map(TensorType::from);
    let exported = with_bar(out, |progress| export_model(&base, adapter.as_ref(), to, kind, progress))?;
    Ok((exported, write_modelfile(to, &args.model, base.config())?))
}

/// Writes the adapter alone.
fn adapter_alone(args: &ExportArgs, to: &Path, out: &Output) -> Result<(Exported, PathBuf)> {
    let config = ModelConfig::load(&args.model)?;
    let path = args.adapter.as_ref().ok_or_else(|| Error::new("--gguf-adapter needs --adapter"))?;
    let adapter = Adapter::load(path, &config)?;
    let kind = args.tensor_type.map(TensorType::from);
    let exported = with_bar(out, |progress| export_adapter(&config, &adapter, to, kind, progress));
    Ok((exported.at(path.display().to_string())?, write_adapter_modelfile(to, &args.model)?))
}

/// Runs `export` under a progress bar.
fn with_bar(
    out: &Output,
    export: impl FnOnce(&mut dyn FnMut(usize, usize)) -> Result<Exported>,
) -> Result<Exported> {
    let mut bar = None;
    let exported = export(&mut |done, total| {
        bar.get_or_insert_with(|| out.bar("export", total >> 20)).update(done >> 20, "MiB");
    });
    bar.iter().for_each(|bar| bar.finish());
    exported
}
