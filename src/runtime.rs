//! What the process has once, whatever the number of queues: the allocation thread.
//!
//! There from the first open to the last close, and again after that.

use crate::allocate::AllocationService;
use crate::error::{Error, Result};
use crate::os;
use parking_lot::Mutex;
use std::sync::Arc;
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
