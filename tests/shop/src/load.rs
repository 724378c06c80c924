//! Customers: they visit all pages and place orders, a few at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};

/// The order that is paid with a voucher worth more than any product.
pub const VOUCHER_ORDER: u64 = 13;
const CUSTOMERS: usize = 3;
/// Every so many orders are paid by card.
const CARD_EVERY: u64 = 5;
/// Between two requests of a customer.
const PAUSE: Duration = Duration::from_millis(40);

/// Lets the customers in. They leave when the runtime is dropped.
pub fn start(shop: SocketAddr) -> Result<Runtime> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("shop-customers")
        .enable_all()
        .build()
        .context("cannot start the customers' thread")?;
    let orders = Arc::new(AtomicU64::new(1));
    for _ in 0..CUSTOMERS {
        runtime.spawn(customer(shop, Arc::clone(&orders)));
    }
    Ok(runtime)
}

/// Shops for ever. A connection that the shop drops, as it does when it panics, is made again.
async fn customer(shop: SocketAddr, orders: Arc<AtomicU64>) {
    loop {
        if let Ok(mut connection) = connect(shop).await {
            while visit(&mut connection, &orders).await.is_ok() {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(shop: SocketAddr) -> Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(shop).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn visit(connection: &mut SendRequest<Empty<Bytes>>, orders: &AtomicU64) -> Result<()> {
    let order = orders.fetch_add(1, Ordering::Relaxed);
    let payment = match order {
        VOUCHER_ORDER => "&voucher=5000",
        _ if order.is_multiple_of(CARD_EVERY) => "&card=true",
        _ => "",
    };
    let language = ["en", "de", "fr"][order as usize % 3];
    let pages = [
        "/".to_owned(),
        "/products".to_owned(),
        format!("/cart?language={language}"),
        format!("/checkout?order={order}&product={}{payment}", order * 7),
    ];
    for page in pages {
        let request = Request::get(page)
            .header("host", "shop")
            .body(Empty::new())?;
        let response = connection.send_request(request).await?;
        response.into_body().collect().await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
