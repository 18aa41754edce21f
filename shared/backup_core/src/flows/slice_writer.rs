//! Writing a slice: changes are grouped, compressed, sealed and uploaded as they come, so that memory does not grow
//! with the slice. Nothing is uploaded before the first change.

use bson::RawDocument;

use crate::error::Result;
use crate::fold::metadata::why_not_foldable;
use crate::format::{Header, ObjectContext, ObjectKey, SliceBuilder};
use crate::id::{Attempt, ClusterTime, SourceName};
use crate::ports::{Clock, DataKeys, ObjectStore, Upload};
use crate::seal::Sealer;
use crate::settings::Settings;
use crate::timeline::{Break, Change, Event, SliceRecord};

pub(super) struct SliceWriter<'a> {
    store: &'a dyn ObjectStore,
    keys: &'a dyn DataKeys,
    clock: &'a dyn Clock,
    settings: &'a Settings,
    source: SourceName,
    from: ClusterTime,
    event_bytes: u64,
    breaks: Vec<Break>,
    open: Option<Open>,
}

struct Open {
    slice: Attempt,
    upload: Box<dyn Upload>,
    sealer: Sealer,
    builder: SliceBuilder,
    stored_bytes: u64,
}

impl<'a> SliceWriter<'a> {
    pub(super) const fn new(
        store: &'a dyn ObjectStore,
        keys: &'a dyn DataKeys,
        clock: &'a dyn Clock,
        settings: &'a Settings,
        source: SourceName,
        from: ClusterTime,
    ) -> Self {
        Self { store, keys, clock, settings, source, from, event_bytes: 0, breaks: Vec::new(), open: None }
    }

    /// Bytes of changes so far.
    pub(super) const fn event_bytes(&self) -> u64 {
        self.event_bytes
    }

    /// Where databases cannot be followed through what was taken so far: one for each of them.
    pub(super) fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// Takes a change.
    pub(super) async fn push(&mut self, event: &Event<'_>, raw: &RawDocument) -> Result<()> {
        if let Some(reason) = why_not_foldable(event) {
            let database = (!event.database.is_empty()).then(|| event.database.to_owned());
            let earlier = self.breaks.iter_mut().find(|it| it.database == database);
            match earlier {
                Some(earlier) => earlier.to = event.time,
                None => self.breaks.push(Break {
                    from: event.time,
                    to: event.time,
                    database,
                    reason,
                    noticed_millis: self.clock.now_millis(),
                }),
            }
        }
        let is_of_documents = matches!(
            event.change,
            Change::Insert { .. } | Change::Replace { .. } | Change::Update { .. } | Change::Delete { .. }
        );
        let collection = event.uuid.filter(|_| is_of_documents);
        self.event_bytes += u64::try_from(raw.as_bytes().len()).unwrap_or(u64::MAX);
        let open = self.open().await?;
        let ready = open.builder.push(event.database, collection, event.time, raw.as_bytes())?;
        open.write(&ready).await
    }

    /// Stores what was taken as the slice up to `to`; nothing if there was no change, unless it is wanted all the same.
    pub(super) async fn finish(mut self, to: ClusterTime, also_empty: bool) -> Result<Option<SliceRecord>> {
        if self.open.is_none() && !also_empty {
            return Ok(None);
        }
        self.open().await?;
        let Some(Open { slice, mut upload, mut sealer, builder, mut stored_bytes }) = self.open else {
            return Ok(None);
        };
        let finished = builder.finish(self.source, self.from, to)?;
        let mut out = Vec::new();
        sealer.push(&finished.rest, &mut out)?;
        sealer.finish(&mut out)?;
        stored_bytes += u64::try_from(out.len()).unwrap_or(u64::MAX);
        if let Err(why) = upload.write(out.into()).await {
            upload.abort().await;
            return Err(why);
        }
        upload.finish().await?;
        let (events, event_bytes) = (finished.events, finished.event_bytes);
        Ok(Some(SliceRecord { from: self.from, to, slice, stored_bytes, events, event_bytes }))
    }

    /// Gives up what was uploaded.
    pub(super) async fn abort(self) {
        if let Some(open) = self.open {
            open.upload.abort().await;
        }
    }

    async fn open(&mut self) -> Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.begin().await?,
        };
        Ok(self.open.insert(open))
    }

    async fn begin(&self) -> Result<Open> {
        let slice = Attempt::generate(self.clock.now_millis())?;
        let context = ObjectContext::of_slice(self.source, slice, self.from);
        let key = self.keys.generate(&context).await?;
        let upload = self.store.upload(ObjectKey::Slice(self.source, self.from, slice)).await?;
        let bound = context.to_bytes();
        let mut out = Header { context, wrapped_key: key.wrapped }.to_bytes()?;
        let sealer = Sealer::new(&key.plain, &bound, &mut out)?;
        let builder = SliceBuilder::new(self.settings.compression_level)?;
        let mut open = Open { slice, upload, sealer, builder, stored_bytes: 0 };
        open.send(out).await?;
        Ok(open)
    }
}

impl Open {
    async fn write(&mut self, plain: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        self.sealer.push(plain, &mut out)?;
        self.send(out).await
    }

    async fn send(&mut self, out: Vec<u8>) -> Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.stored_bytes += u64::try_from(out.len()).unwrap_or(u64::MAX);
        self.upload.write(out.into()).await
    }
}
