//! Several calls at once, none of which is left on its way: whoever gets an error may tidy up without meeting one of
//! them later, and no driver is interrupted in the middle of a message.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::error::Result;

/// Does all of `work`, at most `limit` at a time, in no order. After a failure nothing more is begun; what has begun
/// is waited for, and the first error is told.
pub async fn at_once<T, F>(limit: usize, work: impl IntoIterator<Item = F>) -> Result<Vec<T>>
where
    F: Future<Output = Result<T>>,
{
    let (mut work, mut running) = (work.into_iter(), FuturesUnordered::new());
    let (mut done, mut first) = (Vec::new(), None);
    loop {
        while running.len() < limit && first.is_none() {
            let Some(job) = work.next() else { break };
            running.push(job);
        }
        match running.next().await {
            Some(Ok(value)) => done.push(value),
            Some(Err(why)) => first = first.or(Some(why)),
            None => return first.map_or(Ok(done), Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::error::{Error, ErrorKind};

    #[tokio::test]
    async fn what_has_begun_ends_and_nothing_more_begins() {
        let (begun, ended) = (&AtomicU32::new(0), &AtomicU32::new(0));
        let job = |n: u32| async move {
            begun.fetch_add(1, Ordering::Relaxed);
            for _ in 0..n {
                tokio::task::yield_now().await;
            }
            ended.fetch_add(1, Ordering::Relaxed);
            if n == 3 { Err(Error::new(ErrorKind::Internal, "three")) } else { Ok(n) }
        };
        let told = at_once(2, [9, 3, 9, 9, 9].map(job)).await.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::Internal);
        assert_eq!((begun.load(Ordering::Relaxed), ended.load(Ordering::Relaxed)), (2, 2));
        let mut all = at_once(2, [5, 1, 4].map(job)).await.unwrap();
        all.sort_unstable();
        assert_eq!(all, [1, 4, 5]);
    }
}
