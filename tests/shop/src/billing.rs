//! What an order costs, and who pays.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use tokio::net::TcpStream;

/// An amount of money in cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cents(pub u64);

impl Cents {
    /// Always inlined, so that the panic in it shows whether inlined frames are found.
    #[inline(always)]
    fn minus(self, other: Self, what: &str) -> Self {
        match self.0.checked_sub(other.0) {
            Some(rest) => Self(rest),
            None => panic!(
                "{what} of {} cents exceeds the total of {} cents",
                other.0, self.0
            ),
        }
    }
}

/// How a customer pays.
#[derive(Debug, Clone, Copy)]
pub enum Payment {
    /// By the amount that the wallet holds.
    Wallet,
    /// By card, through the gateway.
    Card,
    /// By a gift voucher of this worth; the wallet pays the rest.
    Voucher(Cents),
}

/// An order that has been priced.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// The order's number, from 1.
    pub number: u64,
    /// The sum of its items.
    pub total: Cents,
    /// How it is paid.
    pub payment: Payment,
}

/// The payment gateway, which is down: a loopback port at which nobody listens.
#[derive(Debug, Clone, Copy)]
pub struct Gateway(SocketAddr);

impl Gateway {
    /// Finds a port that is closed.
    pub fn down() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.local_addr().map(Self)
    }

    async fn reach(self) -> std::io::Result<()> {
        TcpStream::connect(self.0).await.map(drop)
    }
}

/// Why an order was not paid.
#[derive(Debug)]
pub struct Refused;

/// Takes the money and gives back what the wallet pays.
///
/// # Panics
/// When the voucher is worth more than the order: this is the shop's bug.
pub async fn settle(order: Order, gateway: Gateway) -> Result<Cents, Refused> {
    match order.payment {
        Payment::Wallet => Ok(order.total),
        Payment::Voucher(worth) => Ok(redeem_voucher(order, worth)),
        Payment::Card => pay_by_card(order, gateway).await,
    }
}

#[inline(never)]
fn redeem_voucher(order: Order, worth: Cents) -> Cents {
    amount_due(order, worth)
}

/// Always inlined, for the same reason as [`Cents::minus`].
#[inline(always)]
fn amount_due(order: Order, worth: Cents) -> Cents {
    order
        .total
        .minus(worth, &format!("order {}: the voucher", order.number))
}

async fn pay_by_card(order: Order, gateway: Gateway) -> Result<Cents, Refused> {
    const PATIENCE: Duration = Duration::from_millis(20);

    if let Err(error) = gateway.reach().await {
        tokio::time::sleep(PATIENCE).await;
        if gateway.reach().await.is_err() {
            report_error(
                502,
                &format!("order {}: payment gateway: {error}", order.number),
            );
            return Err(Refused);
        }
    }
    Ok(Cents(0))
}

/// Where the shop reports an error that it survives; the place for a probe of one's own:
/// `--probe 'shop::billing::report_error'`.
#[inline(never)]
pub fn report_error(code: i32, reason: &str) {
    // Without it the compiler would drop the arguments, and the function with them.
    std::hint::black_box((code, reason));
}
