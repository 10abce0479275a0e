use super::*;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Decrements the counter when it is dropped.
struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_oldest_guest_gives_way() {
    let mut guests = Guests::new(3);
    let inside = Arc::new(AtomicUsize::new(0));
    for _ in 0..50 {
        inside.fetch_add(1, Ordering::Relaxed);
        let one = Inside(inside.clone());
        let stays = async move {
            let _one = one;
            std::future::pending::<()>().await;
        };
        guests.admit(stays).await;
    }
    tokio::task::yield_now().await;
    assert_eq!(inside.load(Ordering::Relaxed), 3);
    // A connection that has ended frees its place, so no other is closed.
    let (done, ended) = tokio::sync::oneshot::channel();
    let mut few = Guests::new(1);
    few.admit(async move { done.send(()) }).await;
    ended.await.unwrap();
    tokio::task::yield_now().await;
    few.admit(async {}).await;
    assert_eq!(few.present.len(), 1);
}

/// In a flood, connections are admitted one after the other: each has its turn before it is closed.
#[tokio::test]
async fn every_guest_has_a_turn() {
    let mut guests = Guests::new(3);
    let served = Arc::new(AtomicUsize::new(0));
    for _ in 0..50 {
        let served = served.clone();
        guests.admit(async move { served.fetch_add(1, Ordering::Relaxed) }).await;
    }
    assert_eq!(served.load(Ordering::Relaxed), 50);
}
