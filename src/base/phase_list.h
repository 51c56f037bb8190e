/* Phases of a run in the order of the end-of-run table. Include it with QR_PHASE defined. */
QR_PHASE(NETWORK, "build network")
QR_PHASE(START, "initial votes and states")
QR_PHASE(HALO, "halo exchange")
QR_PHASE(UPDATE, "update and tally")
QR_PHASE(REDUCE, "reduce and decide")
QR_PHASE(OUTPUT, "hand over output")
QR_PHASE(HASH, "state hash")
QR_PHASE(FINISH, "wait for files")
