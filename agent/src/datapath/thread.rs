//! The thread on which batches are carried out.

use std::io;
use std::sync::mpsc::{Sender, channel};

use sluice_ebpf_loader::Datapath;

use super::Executor;
use crate::effect::{Batch, Report};
use crate::store::Store;

/// Work for the thread.
#[derive(Debug)]
pub(crate) enum Work {
    /// Steps; reported when done.
    Batch(Batch),
    /// Report verdicts that allow, or only drops.
    ReportVerdicts(bool),
}

/// Hands work to the thread. At most one batch is on its way, so the queue stays short.
#[derive(Clone, Debug)]
pub(crate) struct Kernel(Sender<Work>);

impl Kernel {
    /// Starts the thread; `report` gets what became of each batch and says whether to go on.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(
        datapath: &Datapath,
        store: Store,
        report: impl Fn(Report) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, receiver) = channel();
        let (endpoints, ipcache, policies, settings) = (
            datapath.endpoints.clone(),
            datapath.ipcache.clone(),
            datapath.policies.clone(),
            datapath.settings.clone(),
        );
        std::thread::Builder::new().name("sluice-kernel".to_owned()).spawn(move || {
            let mut executor = Executor::new(endpoints, ipcache, policies, settings, store);
            while let Ok(work) = receiver.recv() {
                match work {
                    Work::Batch(batch) => {
                        if !report(executor.execute(batch)) {
                            return;
                        }
                    }
                    Work::ReportVerdicts(is_on) => executor.report_verdicts(is_on),
                }
            }
        })?;
        Ok(Self(sender))
    }

    /// Hands work over.
    pub(crate) fn send(&self, work: Work) {
        if self.0.send(work).is_err() {
            tracing::error!("the datapath thread has stopped");
        }
    }
}
