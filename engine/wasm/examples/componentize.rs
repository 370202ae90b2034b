//! Makes a component of a core module that carries its WIT world, as `plugins/build.sh` needs it: `componentize IN OUT`.
//!
//! For modules built for `wasm32-unknown-unknown`. Those for `wasm32-wasip2` are components already.

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut paths = std::env::args().skip(1);
    let (Some(from), Some(to)) = (paths.next(), paths.next()) else { anyhow::bail!("usage: componentize IN OUT") };
    let module = std::fs::read(&from).with_context(|| format!("read {from}"))?;
    let component = wit_component::ComponentEncoder::default().validate(true).module(&module)?.encode()?;
    std::fs::write(&to, &component).with_context(|| format!("write {to}"))?;
    println!("{to}: {} bytes", component.len());
    Ok(())
}
