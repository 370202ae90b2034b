//! kickwheel-wasm.
