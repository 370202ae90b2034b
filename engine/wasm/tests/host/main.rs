//! The host as the runtime uses it: guests written as WebAssembly text for every way a call can end, and the shipped
//! plugins over their recorded calls. Needs no WASM toolchain.

mod builtin;
mod cache;
mod guests;
mod outcomes;
mod sandbox;
