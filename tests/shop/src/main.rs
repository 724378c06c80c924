//! The sample service: a small HTTP shop that works, mostly.
//!
//! It has what a real service has: quick pages, slow ones (an order journal that is synced to
//! disk, a cold shelf), system calls that fail (a template that nobody installed, a payment
//! gateway that is down) and a bug: order [`load::VOUCHER_ORDER`] pays with a voucher that is worth
//! more than the order, and [`billing`] panics. `--load` adds customers, so that all of it happens
//! without anybody's help.

mod billing;
mod catalog;
mod journal;
mod load;
mod web;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::runtime;

/// How long open requests may hold up the end. With the last of them go the shop's files.
const CLEAN_UP: Duration = Duration::from_secs(1);

/// A small HTTP shop on the loopback interface.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Listen on this port; 0 lets the kernel choose one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Add customers who visit all pages, several times a second.
    #[arg(long)]
    load: bool,
    /// Close after this long, such as `12s`; without it the shop stays open.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    open_for: Option<Duration>,
}

/// Reads `12`, `12s` or `0.5s`.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("'{text}' is not a number of seconds, such as 12s"))
}

fn main() -> Result<()> {
    let options = Options::parse();
    let shop = Arc::new(web::Shop::open()?);

    let workers = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("shop-worker")
        .enable_all()
        .build()
        .context("cannot start the shop's worker threads")?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
    let listener = workers
        .block_on(TcpListener::bind(address))
        .with_context(|| format!("cannot listen on {address}; choose another --port"))?;
    let address = listener.local_addr()?;
    workers.spawn(async move { axum::serve(listener, web::router(shop)).await });

    let mut stdout = std::io::stdout();
    writeln!(stdout, "shop: open at http://{address}/")?;
    stdout.flush()?;

    let customers = options.load.then(|| load::start(address)).transpose()?;
    workers.block_on(closing_time(options.open_for))?;
    if let Some(customers) = customers {
        customers.shutdown_timeout(CLEAN_UP);
    }
    workers.shutdown_timeout(CLEAN_UP);
    Ok(())
}

/// Waits for the end of `open_for`, or for Ctrl-C or SIGTERM.
async fn closing_time(open_for: Option<Duration>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let timer = async {
        match open_for {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = timer => Ok(()),
        _ = terminate.recv() => Ok(()),
        interrupt = tokio::signal::ctrl_c() => Ok(interrupt?),
    }
}
