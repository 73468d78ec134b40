//! Names for the moments between two steps, where a test build can be told to die.

/// What was just done. The names are those of the variants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    AddLocked,
    AddLeased,
    AddVethCreated,
    AddVethNamed,
    AddHostSettings,
    AddProgramsAttached,
    AddHostUp,
    AddPodSetUp,
    AddHostRoutes,
    AddEndpointCreated,
    AddDone,
    DelAgentTold,
    DelRecordWritten,
    DelRecordNamed,
    DelLinkDeleted,
    DelProgramsDetached,
}

/// Says that `step` is done. In builds with debug assertions, `SLUICE_CNI_TEST_STOP_AFTER=<step>` makes the
/// process kill itself here, as a runtime's time limit or the kernel would.
pub(crate) fn reached(step: Step) {
    #[cfg(debug_assertions)]
    if std::env::var("SLUICE_CNI_TEST_STOP_AFTER").is_ok_and(|wanted| wanted == format!("{step:?}")) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
    }
    #[cfg(not(debug_assertions))]
    let _: Step = step;
}
