//! loom's, where they have another shape than the real ones. No wait of them ends by itself, so a wake-up that is lost
//! is a deadlock, which loom reports.

pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};

macro_rules! modelled_thread_local {
    ($($(#[$doc:meta])* static $name:ident: $type:ty = const { $init:expr };)*) => {
        $(loom::thread_local! { static $name: $type = $init; })*
    };
}
pub(crate) use modelled_thread_local as thread_local;

pub(crate) mod thread {
    pub(crate) use loom::thread::{spawn, yield_now};

    pub(crate) fn sleep(_: std::time::Duration) {
        yield_now();
    }
}

/// The shape of parking_lot's.
pub(crate) mod parking_lot {
    use loom::sync;
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    pub(crate) struct MutexGuard<'m, T>(Option<sync::MutexGuard<'m, T>>);

    #[derive(Default)]
    pub(crate) struct Condvar(sync::Condvar);

    pub(crate) struct WaitTimeoutResult;

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(self.0.lock().ok())
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("locked")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("locked")
        }
    }

    impl Condvar {
        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            guard.0 = guard.0.take().and_then(|locked| self.0.wait(locked).ok());
        }

        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> WaitTimeoutResult {
            self.wait(guard);
            WaitTimeoutResult
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    impl WaitTimeoutResult {
        pub(crate) fn timed_out(&self) -> bool {
            false
        }
    }
}

/// Tries everything up to three preemptions; `LOOM_MAX_PREEMPTIONS` says otherwise (see [`crate::place`]).
pub(crate) fn explore(model: impl Fn() + Sync + Send + 'static) {
    explore_up_to(3, model);
}

/// The same up to `preemptions`, for models that would take minutes.
pub(crate) fn explore_up_to(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.check(model);
}
