//! What the host adds to a call: a bare wasmtime call and `Host::call` of the same plugin, in turns, in one run.
//!
//! Both get a fresh instance from a pool, count fuel and check epochs. The bare one does not log, check, decode or bound
//! anything else. Prints the median of the rounds' best-of-many; run it with `--release`.

use std::time::{Duration, Instant};

use kickwheel_schemas::plugin::PluginCall;
use kickwheel_wasm::{Host, HostConfig, Limits, builtin};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    component::{Component, InstancePre, Linker},
};

const ROUNDS: usize = 9;
const CALLS: u32 = 2_000;
const CALL: &str = r#"{"with":{"candidates":[{"index":0,"metrics":{"loss":0.5}},{"index":1,"metrics":{"loss":0.25}}],"metric":"loss"},"task":"0190/choose[0]"}"#;

struct Bare {
    engine: Engine,
    pre: InstancePre<()>,
}

impl Bare {
    fn new(component: &[u8]) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.consume_fuel(true).epoch_interruption(true);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::default()));
        let engine = Engine::new(&config)?;
        let mut linker = Linker::<()>::new(&engine);
        let mut host = linker.instance("kickwheel:plugin/host@0.1.0")?;
        host.func_wrap("log", |_, (_, _): (String, String)| Ok(()))?;
        let pre = linker.instantiate_pre(&Component::from_binary(&engine, component)?)?;
        Ok(Self { engine, pre })
    }

    fn call(&self) -> wasmtime::Result<String> {
        let mut store = Store::new(&self.engine, ());
        store.set_fuel(10_000_000_000)?;
        store.set_epoch_deadline(1_000);
        let instance = self.pre.instantiate(&mut store)?;
        let run = instance.get_typed_func::<(&str,), (Result<String, String>,)>(&mut store, "run")?;
        let (text,) = run.call(&mut store, (CALL,))?;
        text.map_err(wasmtime::Error::msg)
    }
}

fn main() -> wasmtime::Result<()> {
    let shipped = builtin().iter().find(|plugin| plugin.name == "best-of").expect("best-of ships");
    let bare = Bare::new(shipped.component)?;
    let host = Host::new(HostConfig::default())?;
    let plugin = host.load(shipped.component, shipped.manifest())?;
    let call: PluginCall = serde_json::from_str(CALL)?;
    let limits = Limits::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;

    let fuel = runtime.block_on(host.call(&plugin, &call, &limits));
    assert!(fuel.result.is_ok(), "{fuel:?}");
    println!("{}: {} bytes, {} fuel, {}", shipped.name, shipped.component.len(), fuel.fuel_used, bare.call()?);
    let (mut bares, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..CALLS {
            bare.call()?;
        }
        let bare_time = begin.elapsed() / CALLS;
        let begin = Instant::now();
        runtime.block_on(async {
            for _ in 0..CALLS {
                let report = host.call(&plugin, &call, &limits).await;
                assert!(report.result.is_ok(), "{report:?}");
            }
        });
        let our_time = begin.elapsed() / CALLS;
        println!("bare {bare_time:?}, host.call {our_time:?}");
        bares.push(bare_time);
        ours.push(our_time);
        ratios.push(our_time.as_secs_f64() / bare_time.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    let middle = ROUNDS / 2;
    println!("median: bare {:?}, host.call {:?}, ratio {:.2}", median(bares), median(ours), ratios[middle]);
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
