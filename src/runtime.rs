//! What the process has once, whatever the number of queues: the allocation thread, and a flush service for each
//! device.
//!
//! There from the first open to the last close, and again after that.

use crate::allocate::AllocationService;
use crate::error::{Error, Result};
use crate::flush_service::FlushService;
use crate::os;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

struct Running {
    service: Arc<AllocationService>,
    thread: JoinHandle<()>,
    leases: usize,
}

/// A queue's share in the runtime; the last one to go ends it.
pub(crate) struct Lease(Arc<AllocationService>);

impl Lease {
    pub fn take() -> Result<Lease> {
        let mut running = RUNNING.lock();
        if let Some(running) = &mut *running {
            running.leases += 1;
            return Ok(Lease(running.service.clone()));
        }
        let service = Arc::new(AllocationService::new());
        let worker = service.clone();
        let thread = os::spawn("mfq-alloc", move || worker.run());
        let thread = thread.map_err(|cause| Error::system("starting the allocation thread", cause))?;
        *running = Some(Running { service: service.clone(), thread, leases: 1 });
        Ok(Lease(service))
    }

    pub fn allocation(&self) -> &AllocationService {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The lock is held while the thread ends, so that an open meanwhile waits and starts a new one.
        let mut running = RUNNING.lock();
        let leases = running.as_mut().map_or(0, |running| {
            running.leases -= 1;
            running.leases
        });
        if leases == 0
            && let Some(Running { service, thread, .. }) = running.take()
        {
            service.stop();
            let _ = thread.join(); // it has caught its panics
        }
    }
}

/// The flush service of a device; it ends with the last queue that holds it.
pub(crate) fn flush_service(device: u64) -> Arc<FlushService> {
    static SERVICES: Mutex<Option<HashMap<u64, Weak<FlushService>>>> = Mutex::new(None);
    let mut services = SERVICES.lock();
    let services = services.get_or_insert_default();
    services.retain(|_, service| service.strong_count() > 0);
    let running = services.get(&device).and_then(Weak::upgrade);
    running.unwrap_or_else(|| {
        let service = Arc::new(FlushService::default());
        services.insert(device, Arc::downgrade(&service));
        service
    })
}
