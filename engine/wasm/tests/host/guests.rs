//! Guests written as WebAssembly text, made into components in-process.

use std::{collections::BTreeMap, fmt::Write as _};

use kickwheel_schemas::plugin::{PluginCall, PluginManifest};
use kickwheel_wasm::{CallReport, Host, HostConfig, Limits, Plugin};
use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// The world of `schemas/wit`, as guests import it.
const WIT: &str = include_str!("../../../../schemas/wit/plugin.wit");

/// The parts of WASI that a test's guest may import, cut down to what is called.
const WASI: &str = "
package wasi:clocks@0.2.3 {
  interface monotonic-clock {
    use wasi:io/poll@0.2.3.{pollable};
    now: func() -> u64;
    subscribe-duration: func(when: u64) -> pollable;
  }
  interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
}
package wasi:random@0.2.3 {
  interface random { get-random-u64: func() -> u64; }
  interface insecure { get-insecure-random-u64: func() -> u64; }
  interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
}
package wasi:filesystem@0.2.3 {
  interface types { resource descriptor; }
  interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }
}
package wasi:io@0.2.3 {
  interface poll { resource pollable { block: func(); } }
  interface error { resource error; }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream { blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>; }
  }
}
package wasi:cli@0.2.3 {
  interface environment {
    get-environment: func() -> list<tuple<string, string>>;
    get-arguments: func() -> list<string>;
  }
  interface exit { exit: func(status: result); }
  interface stdout { use wasi:io/streams@0.2.3.{output-stream}; get-stdout: func() -> output-stream; }
}
";

/// A guest: the body of its `run`, and what that needs beside it.
#[derive(Default)]
pub struct Guest {
    body: String,
    text: String,
    declarations: String,
    imports: Vec<&'static str>,
}

/// Where the guest's text lies in its memory.
const TEXT_AT: usize = 4096;

impl Guest {
    /// A guest whose `run` is this body. It sees `$ptr` and `$len` (the call), `$ok` and `$err` (which make the result of a
    /// pointer and a length), `$log`, and its text at `{at}` of length `{len}`.
    pub fn new(text: &str, body: &str) -> Self {
        let body = body.replace("{at}", &TEXT_AT.to_string()).replace("{len}", &text.len().to_string());
        Self { body, text: text.to_owned(), ..Self::default() }
    }

    /// A guest that returns this text.
    pub fn returning(text: &str) -> Self {
        Self::new(text, "(call $ok (i32.const {at}) (i32.const {len}))")
    }

    /// Imports a WASI interface, with its core functions.
    pub fn import(mut self, interface: &'static str, functions: &str) -> Self {
        self.imports.push(interface);
        writeln!(self.declarations, "{functions}").expect("a text takes any line");
        self
    }

    /// The component.
    pub fn component(&self) -> Vec<u8> {
        let Self { body, text, declarations, imports } = self;
        let mut data = String::new();
        for byte in text.bytes() {
            write!(data, "\\{byte:02x}").expect("a text takes any byte");
        }
        let module = format!(
            r#"(module
              (import "kickwheel:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32 i32)))
              {declarations}
              (memory (export "memory") 4)
              (data (i32.const {TEXT_AT}) "{data}")
              (global $free (mut i32) (i32.const 131072))
              (func $cabi_realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.get $free)
                (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get 3)) (i32.const 7)) (i32.const -8))))
              (func $result (param $tag i32) (param $at i32) (param $len i32) (result i32)
                (i32.store8 (i32.const 1024) (local.get $tag))
                (i32.store (i32.const 1028) (local.get $at))
                (i32.store (i32.const 1032) (local.get $len))
                (i32.const 1024))
              (func $ok (param i32 i32) (result i32) (call $result (i32.const 0) (local.get 0) (local.get 1)))
              (func $err (param i32 i32) (result i32) (call $result (i32.const 1) (local.get 0) (local.get 1)))
              (func (export "run") (param $ptr i32) (param $len i32) (result i32) (local $a i32) (local $b i64)
                {body}))"#
        );
        let mut module = wat::parse_str(&module).expect("the guest is WebAssembly text");
        let mut resolve = wit_parser::Resolve::default();
        resolve.push_str("wasi.wit", &(WASI_PACKAGE_OPENING.to_owned() + WASI)).expect("the WASI excerpt parses");
        resolve.push_str("plugin.wit", WIT).expect("the world parses");
        let mut world = "package test:guest; world guest { include kickwheel:plugin/plugin@0.1.0; ".to_owned();
        for name in imports {
            write!(world, "import wasi:{name}@0.2.3; ").expect("a text takes any name");
        }
        world.push('}');
        let package = resolve.push_str("guest.wit", &world).expect("the guest's world parses");
        let world = resolve.select_world(&[package], Some("guest")).expect("the world exists");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .expect("the metadata can be embedded");
        let mut encoder =
            ComponentEncoder::default().validate(true).module(&module).expect("the module fits its world");
        encoder.encode().expect("the module can be made a component")
    }
}

/// A file of nested packages needs one of its own around them.
const WASI_PACKAGE_OPENING: &str = "package test:wasi;\n";

/// A manifest with the optional input `n`, and the outputs `answer` (a number) and `text`.
pub fn manifest() -> PluginManifest {
    serde_json::from_value(json!({
        "name": "guest", "version": "0.1.0", "description": "A guest of a test.",
        "inputs": { "n": { "type": "number", "description": "any number" } },
        "outputs": { "answer": { "type": "number" }, "text": { "type": "string" }, "clock": { "type": "list" } },
    }))
    .expect("the manifest above is complete")
}

/// A host without a cache.
pub fn host() -> Host {
    let config = HostConfig { max_concurrent: 8, ..HostConfig::default() };
    Host::new(config).expect("the engine can be set up")
}

/// A guest, loaded.
pub fn load(host: &Host, guest: &Guest) -> Plugin {
    host.load(&guest.component(), manifest()).expect("the guest is a plugin")
}

/// A call with these arguments.
pub fn call_with(with: Value) -> PluginCall {
    let with: BTreeMap<String, Value> = serde_json::from_value(with).expect("arguments are a map");
    PluginCall { with, task: "0190/step[0]".to_owned() }
}

/// Loads and calls a guest without arguments.
pub async fn run(guest: &Guest, limits: &Limits) -> CallReport {
    let host = host();
    let plugin = load(&host, guest);
    host.call(&plugin, &call_with(json!({})), limits).await
}
