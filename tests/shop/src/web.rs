//! The shop's pages.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::task;

use crate::billing::{self, Cents, Gateway, Order, Payment};
use crate::catalog::{self, Catalog};
use crate::journal::Journal;

/// What the pages work on. Its files are gone when it is dropped.
pub struct Shop {
    catalog: Catalog,
    journal: Journal,
    gateway: Gateway,
    _files: TempDir,
}

impl Shop {
    /// Sets the shop up in a temporary directory.
    pub fn open() -> Result<Self> {
        let files = tempfile::Builder::new()
            .prefix("shop-")
            .tempdir()
            .context("cannot create a temporary directory")?;
        Ok(Self {
            catalog: Catalog::stock(files.path()).context("cannot write the catalog")?,
            journal: Journal::open(files.path()).context("cannot open the order journal")?,
            gateway: Gateway::down().context("cannot find a closed port")?,
            _files: files,
        })
    }
}

/// All pages.
pub fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/products", get(products))
        .route("/cart", get(cart))
        .route("/checkout", get(checkout))
        .with_state(shop)
}

async fn home() -> Html<&'static str> {
    Html("<h1>Shop</h1>")
}

async fn products(State(shop): State<Arc<Shop>>) -> Result<Html<String>, StatusCode> {
    let count = blocking(move || shop.catalog.read()).await?;
    Ok(Html(format!("<h1>{count} products</h1>")))
}

#[derive(Deserialize)]
struct CartQuery {
    language: String,
}

async fn cart(State(shop): State<Arc<Shop>>, Query(query): Query<CartQuery>) -> Html<String> {
    Html(shop.catalog.cart_template(&query.language))
}

#[derive(Deserialize)]
struct CheckoutQuery {
    order: u64,
    product: u64,
    /// Paid by card.
    #[serde(default)]
    card: bool,
    /// Paid by a gift voucher of this many cents.
    voucher: Option<u64>,
}

async fn checkout(
    State(shop): State<Arc<Shop>>,
    Query(query): Query<CheckoutQuery>,
) -> Result<Html<String>, StatusCode> {
    let payment = match query.voucher {
        Some(worth) => Payment::Voucher(Cents(worth)),
        None if query.card => Payment::Card,
        None => Payment::Wallet,
    };
    let order = Order {
        number: query.order,
        total: Cents(catalog::price(query.product)),
        payment,
    };
    let paid = billing::settle(order, shop.gateway).await;
    let due = paid.map_err(|billing::Refused| StatusCode::BAD_GATEWAY)?;
    blocking(move || shop.journal.append(&order)).await?;
    Ok(Html(format!(
        "<h1>Order {}: {} cents</h1>",
        order.number, due.0
    )))
}

/// Runs a call that blocks on a thread where it holds nobody up.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, StatusCode> {
    task::spawn_blocking(call)
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or(StatusCode::INTERNAL_SERVER_ERROR)
}
