//! The functions of the host that the emulation of Node calls.

use super::needs_node;
use crate::judge::source::{POWER, SPREAD, StrippedProgram};
use icu_collator::options::{CaseLevel, CollatorOptions, Strength};
use icu_collator::preferences::CollationNumericOrdering;
use icu_collator::{Collator, CollatorBorrowed, CollatorPreferences};
use icu_locale_core::Locale;
use rquickjs::context::EvalOptions;
use rquickjs::prelude::Opt;
use rquickjs::{Ctx, FromJs, Function, Object, Value};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};
use url::{Url, quirks};

/// Creates the object of functions that `js/node.js` receives; `program` is what runs.
pub fn natives<'js>(ctx: &Ctx<'js>, program: &Rc<StrippedProgram>) -> rquickjs::Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    let started = Instant::now();
    let add = |name: &str, f: rquickjs::Result<Function<'js>>| object.set(name, f?);
    add(
        "write",
        Function::new(ctx.clone(), |text: rquickjs::String<'_>| {
            let text = text.to_string().unwrap_or_else(|_| "\u{fffd}".into());
            let _ = std::io::stderr().write_all(text.as_bytes());
        }),
    )?;
    add("exit", Function::new(ctx.clone(), exit))?;
    add("kill", Function::new(ctx.clone(), |signal: String| kill(&signal)))?;
    add(
        "sleep",
        Function::new(ctx.clone(), |ms: f64| {
            std::thread::sleep(Duration::from_secs_f64(ms.clamp(0.0, 1e7) / 1e3))
        }),
    )?;
    add("now", Function::new(ctx.clone(), move || started.elapsed().as_secs_f64() * 1e3))?;
    add("hash", Function::new(ctx.clone(), hash))?;
    add("usesNode", Function::new(ctx.clone(), |name: String| uses_node(&name)))?;
    let collators = RefCell::new(HashMap::new());
    add(
        "collate",
        Function::new(
            ctx.clone(),
            move |a: String, b: String, locale: String, sensitivity: String, numeric| {
                collate(&mut collators.borrow_mut(), [&a, &b], (locale, sensitivity, numeric))
            },
        ),
    )?;
    add("parseUrl", Function::new(ctx.clone(), parse_url))?;
    add("setUrl", Function::new(ctx.clone(), set_url))?;
    add(
        "compile",
        Function::new(ctx.clone(), |ctx: Ctx<'js>, code: String| eval::<Value>(&ctx, &code, "file.js")),
    )?;
    let program = program.clone();
    add("line", Function::new(ctx.clone(), move |row: u32| program.source_line(row).to_string()))?;
    object.set("spreadName", SPREAD)?;
    object.set("powerName", POWER)?;
    Ok(object)
}

/// Evaluates a script under a file name.
pub fn eval<'js, V: FromJs<'js>>(ctx: &Ctx<'js>, code: &str, name: &str) -> rquickjs::Result<V> {
    let mut options = EvalOptions::default();
    (options.strict, options.filename) = (false, Some(name.into()));
    ctx.eval_with_options(code, options)
}

fn exit(code: rquickjs::Coerced<f64>) {
    std::process::exit(code.0 as i32 & 0xff)
}

/// Sends this process a signal, handled by default as Node does.
fn kill(signal: &str) {
    use rustix::process::{Signal, getpid, kill_process};
    let signal = match signal {
        "SIGKILL" | "9" => Signal::KILL,
        "SIGSTOP" | "19" => Signal::STOP,
        "SIGABRT" | "6" => Signal::ABORT,
        "SIGSEGV" | "11" => Signal::SEGV,
        "SIGINT" | "2" => Signal::INT,
        "SIGHUP" | "1" => Signal::HUP,
        "0" => return,
        _ => Signal::TERM,
    };
    let _ = kill_process(getpid(), signal);
    // Another thread may receive the signal: wait, so that the program does not end before it is handled.
    std::thread::sleep(Duration::from_millis(100));
}

/// Returns the digest, in hexadecimal, of bytes that are given as one character each; `None` for an unknown algorithm.
fn hash(algorithm: String, bytes: String) -> Option<String> {
    use sha2::Digest;
    let bytes: Vec<u8> = bytes.chars().map(|c| c as u8).collect();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
    match algorithm.as_str() {
        "md5" => Some(hex(&md5::Md5::digest(&bytes))),
        "sha1" => Some(hex(&sha1::Sha1::digest(&bytes))),
        "sha224" => Some(hex(&sha2::Sha224::digest(&bytes))),
        "sha256" => Some(hex(&sha2::Sha256::digest(&bytes))),
        "sha384" => Some(hex(&sha2::Sha384::digest(&bytes))),
        "sha512" => Some(hex(&sha2::Sha512::digest(&bytes))),
        _ => None,
    }
}

/// Reports a need to the judge, by standard output, where no program can write.
fn uses_node(name: &str) {
    if let Some(line) = needs_node::report(name) {
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush());
    }
}

/// Locale, sensitivity and numeric order of a comparison.
type Collation = (String, String, bool);

/// Compares two texts in the order of a language, as ICU does; `None` for an unknown language.
fn collate(
    known: &mut HashMap<Collation, Option<CollatorBorrowed<'static>>>,
    [a, b]: [&str; 2],
    collation: Collation,
) -> Option<i32> {
    let collator = known.entry(collation).or_insert_with_key(collator).as_ref()?;
    Some(match collator.compare(a, b) {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    })
}

fn collator((locale, sensitivity, numeric): &Collation) -> Option<CollatorBorrowed<'static>> {
    let mut preferences = CollatorPreferences::from(&locale.parse::<Locale>().ok()?);
    if *numeric {
        preferences.numeric_ordering = Some(CollationNumericOrdering::True);
    }
    let mut options = CollatorOptions::default();
    options.strength = Some(match sensitivity.as_str() {
        "base" | "case" => Strength::Primary,
        "accent" => Strength::Secondary,
        _ => Strength::Tertiary,
    });
    options.case_level = (sensitivity == "case").then_some(CaseLevel::On);
    Collator::try_new(preferences, options).ok()
}

fn parse_url<'js>(ctx: Ctx<'js>, input: String, base: Opt<Option<String>>) -> Option<Object<'js>> {
    let base = match base.0.flatten() {
        Some(base) => Some(Url::parse(&base).ok()?),
        None => None,
    };
    let url = Url::options().base_url(base.as_ref()).parse(&input).ok()?;
    url_parts(&ctx, &url)
}

/// Sets one part of a URL; `None` if the value is refused.
fn set_url<'js>(ctx: Ctx<'js>, href: String, part: String, value: String) -> Option<Object<'js>> {
    let mut url = Url::parse(&href).ok()?;
    match part.as_str() {
        "href" => quirks::set_href(&mut url, &value).ok()?,
        "protocol" => quirks::set_protocol(&mut url, &value).ok()?,
        "username" => quirks::set_username(&mut url, &value).ok()?,
        "password" => quirks::set_password(&mut url, &value).ok()?,
        "host" => quirks::set_host(&mut url, &value).ok()?,
        "hostname" => quirks::set_hostname(&mut url, &value).ok()?,
        "port" => quirks::set_port(&mut url, &value).ok()?,
        "pathname" => quirks::set_pathname(&mut url, &value),
        "search" => quirks::set_search(&mut url, &value),
        _ => quirks::set_hash(&mut url, &value),
    }
    url_parts(&ctx, &url)
}

fn url_parts<'js>(ctx: &Ctx<'js>, url: &Url) -> Option<Object<'js>> {
    let origin = quirks::origin(url);
    let parts = [
        ("href", quirks::href(url)),
        ("origin", &origin),
        ("protocol", quirks::protocol(url)),
        ("username", quirks::username(url)),
        ("password", quirks::password(url)),
        ("host", quirks::host(url)),
        ("hostname", quirks::hostname(url)),
        ("port", quirks::port(url)),
        ("pathname", quirks::pathname(url)),
        ("search", quirks::search(url)),
        ("hash", quirks::hash(url)),
    ];
    let object = Object::new(ctx.clone()).ok()?;
    parts.into_iter().try_for_each(|(name, value)| object.set(name, value)).ok()?;
    Some(object)
}
