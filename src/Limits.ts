/**
 * Every bound of Millrace, with its unit in its name.
 *
 * A number that protects the manager, a client or a crawl from growth lives here and nowhere else. Each one is the
 * largest allowed value: `limit` passes, `limit + 1` is refused. Sources: reference pages of the project, RFC 5802,
 * RFC 7677, RFC 9309.
 */

// ---- frames and messages

/** Bytes of one frame body before the peer has proven who it is. */
export const preAuthFrameBytesMax = 1_024
/** Frames a peer, client or manager, may send before it has proven who it is. */
export const preAuthFramesMax = 6
/** Bytes of one frame body that a client takes from a manager which has not proven yet that it has the key. */
export const unprovenFrameBytesMax = 64 * 1_024
/** Bytes of one frame body after the handshake. A larger length is refused before a byte of it is kept. */
export const frameBytesMax = 20 * 1_024 * 1_024
/**
 * Bytes after which a writer closes a frame and begins the next one: many messages a frame, many frames a write. Small
 * enough that most frames come whole in one read (64 KiB) and are used where they lie.
 */
export const frameBytesTarget = 32 * 1_024
/** Messages in one frame. */
export const messagesPerFrameMax = 16_384
/** Nesting of arrays in a message; the grammar itself needs 5. */
export const nestingDepthMax = 32

// ---- handshake

/** Time for the whole handshake, from accept to login. */
export const handshakeMs = 5_000
/** PBKDF2 iterations a client accepts from a manager (RFC 7677 sets the floor; the ceiling stops a hostile manager). */
export const scramIterationsMin = 4_096
export const scramIterationsMax = 1_000_000
/** Iterations for generated secrets of 32 random bytes, and for what people type. */
export const scramIterationsGenerated = 4_096
export const scramIterationsPassword = 600_000
/** Random bytes in a nonce, at least. */
export const scramNonceBytesMin = 18
/** Characters of one SCRAM message. */
export const scramMessageCharsMax = 900
/** Bytes of a shared key (authkey), and of a generated one. */
export const authkeyBytesMax = 1_024
export const authkeyGeneratedBytes = 32

// ---- credentials and roles

/** Credentials of one listener. */
export const credentialsMax = 1_000
/** Roles with their names of one credential, and name patterns of one of them, for queues and for objects. */
export const grantsMax = 16
export const namePatternsMax = 64
/** Bytes of a file of credentials, and of one of its lines. */
export const credentialsFileBytesMax = 4 * 1_024 * 1_024
export const credentialsLineBytesMax = 256 * 1_024

// ---- connections and sessions

/** Connections of one manager, those in the handshake among them. */
export const connectionsMax = 16_384
/** Of these, still in the handshake, in all. */
export const connectionsUnauthenticatedMax = 1_024
/** Of these, from one address; and from an address of this machine. IPv6: from one network of 64 bits. */
export const connectionsUnauthenticatedPerAddressMax = 256
export const connectionsUnauthenticatedLoopbackMax = 1_024
/** Failed logins, from one address or under one name, after which attempts are answered in turn and with a delay. */
export const loginFailuresFree = 3
/** The first delay; it doubles with every failure, up to the longest. An attempt that would wait longer is refused. */
export const loginDelayBaseMs = 250
export const loginDelayMsMax = 3_000
/** Failures are forgotten after this long without another. */
export const loginFailuresForgottenMs = 600_000
/** Bytes of a file with certificates or a private key. */
export const pemBytesMax = 1_024 * 1_024
/** Addresses and names whose failures, and pairs of them whose successes, are remembered. */
export const loginRecordsMax = 8_192
/** What peers cause is logged once, then as a count every so often; and so many kinds and addresses at a time. */
export const logBurstMs = 10_000
export const logBurstsMax = 1_024
/**
 * Time between two heartbeats of a client; a connection silent for `heartbeatDeadMs` is dropped by either side. Both look
 * every `silenceLookMs`: a peer that has vanished is found within two heartbeats. A manager that has said nothing for
 * `quietMs`, because its store or a long request keeps the answers back, says that it is there.
 */
export const heartbeatMs = 5_000
/** The shortest that a client lets a manager ask for. */
export const heartbeatMsMin = 1_000
export const heartbeatDeadMs = 9_000
export const silenceLookMs = 1_000
export const quietMs = 6_000
/** Requests of one connection that wait for their answer. A client queues what is above; a manager refuses it. */
export const requestsInFlightMax = 256
/** Bytes a manager keeps for a peer that does not read, before it drops the peer. */
export const outboundBytesMax = 64 * 1_024 * 1_024
/** Bytes that a client writes in one turn before it hands them over; what follows goes with the turn's end. */
export const outboundBytesTurn = 256 * 1_024
/** Bytes written to a peer and not yet taken by it, above which nothing more is delivered to it. */
export const outboundBytesPause = 1 * 1_024 * 1_024
/** Bytes read from one connection that wait to be stepped; above it the connection is not read. */
export const inboundBytesPause = 8 * 1_024 * 1_024
/** Subscriptions (lease or outcome streams) of one session. */
export const subscriptionsPerSessionMax = 256
/** Tasks one subscription may hold: the largest credit. */
export const creditMax = 65_536
/** A session without a connection and without leases is kept this long: as long as its answers are remembered. */
export const sessionIdleMs = 24 * 60 * 60 * 1_000
/** Sessions of one manager. */
export const sessionsMax = 32_768

// ---- names and fields

/** Names of queues, credentials and namespaces: `[A-Za-z0-9._:-]{1,200}`. */
export const nameCharsMax = 200
/** Bytes of a dedupe id and of a lane key. */
export const taskIdBytesMax = 4_096
export const taskKeyBytesMax = 1_024
/** Labels of a task, and bytes of each. */
export const labelsPerTaskMax = 16
export const labelBytesMax = 256
/** Bytes of a schema fingerprint description kept by the manager to explain a mismatch. */
export const schemaTextBytesMax = 64 * 1_024
/** Older fingerprints one definition may accept. */
export const acceptedFingerprintsMax = 64
/** Bytes of a trace context header. */
export const traceBytesMax = 256

// ---- progress of a task

/** What a progress of 100 % travels as. */
export const progressWhole = 10_000
/** A task that waits does so for this long at least, unless there is news: a handler that waits in a circle is no storm. */
export const suspendMsMin = 10
/** Characters of the name of a step or a signal, as a program gives it. */
export const stepNameCharsMax = 200
/** Steps and signals of one task, bytes of a name, and of all names and values together. */
export const entriesPerTaskMax = 1_024
export const entryNameBytesMax = 1_024
export const entryBytesPerTaskMax = 2 * 1_024 * 1_024

// ---- payloads and batches

/** Bytes of a payload, a result, an error or a checkpoint. */
export const payloadBytesMax = 1_024 * 1_024
/** A queue may raise its payload limit to this. */
export const payloadBytesCeiling = 16 * 1_024 * 1_024
/** Items and payload bytes of one batch message; larger calls are split by the client. */
export const batchItemsMax = 4_096
export const batchBytesMax = 4 * 1_024 * 1_024
/** Children, set additions, counter increments and dict writes of one commit. */
export const commitEffectsMax = 10_000
/** Items of a page of a list. */
export const pageItemsMax = 1_000
/** Tasks that one page of a browse looks at, and that one message purges, redrives or, at a close, cancels. */
export const browseTasksMax = 10_000
/** Task numbers, of whatever queue, that one of them looks at. */
export const walkSlotsMax = 131_072
export const sweepTasksMax = 10_000
/** Pairs of old and new task that one redrive answers with. */
export const redriveTasksMax = 1_000

// ---- shared objects

/** Shared objects (sets, dicts, counters) of one manager. */
export const objectsMax = 10_000
/** Entries of one set, and bytes of one key. */
export const setEntriesMax = 100_000_000
export const setKeyBytesMax = 4_096
/** Bytes of the keys of one set, where the manager keeps them in memory for want of a store. */
export const setTextBytesMax = 1_024 * 1_024 * 1_024
/** Keys of one dict, bytes of one key and of one value, and bytes of all of them. */
export const dictKeysMax = 1_000_000
export const dictKeyBytesMax = 1_024
export const dictValueBytesMax = 1_024 * 1_024
export const dictBytesMax = 256 * 1_024 * 1_024

// ---- queues

/** Queues of one manager. */
export const queuesMax = 10_000
/** Waiting tasks of a queue, default. */
export const capacityDefault = 1_000_000
/** Lease terms. */
export const leaseMsDefault = 30_000
export const leaseMsMin = 1_000
export const leaseMsMax = 24 * 60 * 60 * 1_000
/** Attempts before a task is dead, default and largest. */
export const attemptsDefault = 5
export const attemptsMax = 10_000
/** Back-off between attempts: base, factor and cap by default. */
export const backoffBaseMsDefault = 1_000
export const backoffFactorDefault = 2
export const backoffCapMsDefault = 60_000
/** Longest delay of a task and longest Retry-After that is honoured. */
export const delayMsMax = 366 * 24 * 60 * 60 * 1_000
/** Releases of one task before it is dead: something gives it back for ever. */
export const releasesMax = 1_000
/** Losses of one task while started before it is quarantined. */
export const lossesWhileStartedMax = 3
/** Longest wait of one request (put into a full queue, lease, get, join, outcome). */
export const waitMsMax = 24 * 60 * 60 * 1_000
/** Outcomes kept per queue: count and age. */
export const outcomesKeptMax = 1_000_000
export const outcomesKeptMs = 24 * 60 * 60 * 1_000
/** Bytes of results and errors kept in the outcome log of one queue. */
export const outcomesKeptBytes = 256 * 1_024 * 1_024
/** Dedupe ids kept after their task has ended: count and age. */
export const dedupeKeptMax = 1_000_000
export const dedupeKeptMs = 24 * 60 * 60 * 1_000
/** Dead letters kept per queue, and reasons kept per task. */
export const deadLettersKeptMax = 100_000
export const deadLettersKeptBytes = 256 * 1_024 * 1_024
export const reasonsKeptMax = 16
/** Bytes of one reason (error text, defect with stack) as kept. */
export const reasonBytesMax = 16 * 1_024

// ---- store

/** Bytes after which the manager closes a row of the log: what is read to get one payload back. */
export const rowBytesTarget = 64 * 1_024
/** Bytes of payloads, and of outcome bodies, kept in memory per namespace; what is beyond is read from the store. */
export const residentBytesDefault = 256 * 1_024 * 1_024
/** Bytes of the log above twice what lives in it, before the oldest rows are cleaned. */
export const logSlackBytes = 64 * 1_024 * 1_024
/** Numbers of tasks that a manager with memory queues beside stored ones sets aside at a time. */
export const taskNumbersReserved = 65_536
/**
 * Numbers of tasks passed over at a start, in case a loss of power took the last rounds of a queue that is not synced: more
 * than are given between two syncs, which are at most a second apart.
 */
export const taskNumbersSkipped = 1_048_576
/**
 * Lives in a row that may be lost as a whole before a number could come again. Few, for numbers below 2^31 are the ones
 * that V8 keeps in the field of a task itself: so there are some 240 starts before the first one beyond.
 */
export const livesLostMax = 16
/** Rows cleaned in one round, and bytes of rows kept for the next read. */
export const rowsCleanedPerRoundMax = 32
export const bytesCleanedPerRoundMax = 2 * 1_024 * 1_024
export const rowsCachedBytes = 16 * 1_024 * 1_024
/** Answers of one session that its client has not acknowledged; a client that never does is cut off. */
export const answersRememberedMax = 8_192
/** Ranges of one acknowledgement of answers. */
export const answerRangesMax = 1_024
/** Failures in a row after which a manager that restarts from its store gives up, and the waits between. */
export const managerRestartsMax = 3
export const managerRestartBaseMs = 200
export const managerRestartCapMs = 5_000
/** A manager that has run this long without a failure starts to count anew. */
export const managerHealthyMs = 60_000
/** Bytes of one row of the log. */
export const storeRowBytesMax = 64 * 1_024 * 1_024
/** Page of a database file. */
export const storePageBytes = 8 * 1_024
/** Written to SQLite's write-ahead log before it is copied into the database. */
export const storeWalBytes = 4 * 1_024 * 1_024
/** Kept free as a file, for the transactions that a full disk must not stop. At least twice the log and a batch. */
export const storeBallastBytes = 16 * 1_024 * 1_024
/** Free space below which no new work is taken, default. */
export const storeLowWaterBytes = 64 * 1_024 * 1_024
/** Age of a measured free space, and bytes written after which it is measured again. */
export const storeSpaceSampleMs = 250
export const storeSpaceSampleBytes = 4 * 1_024 * 1_024
/** Rows that are read together while a log is loaded: bytes after which a page ends. */
export const storeLoadPageBytes = 1_024 * 1_024
/** Between two looks at what can wait: an unsynced log, a missing ballast, space to give back. */
export const storeTendMs = 1_000
/** Space inside the file that is free and kept; what is above goes back to the file system, this much at a time. */
export const storeSpareBytesMax = 256 * 1_024 * 1_024
export const storeShrinkBytes = 8 * 1_024 * 1_024
// ---- repeats, explanations

/** Repeats of one queue, of one manager, and payload bytes of a queue's repeats when there are several. */
export const repeatsPerQueueMax = 1_000
export const repeatsMax = 10_000
export const repeatBytesPerQueueMax = 4 * 1_024 * 1_024
/** Bytes of a repeat's id, of a cron expression, and of the name of a time zone. */
export const repeatIdBytesMax = 256
export const cronBytesMax = 256
export const zoneBytesMax = 64
/** Shortest interval of a repeat; the longest is `delayMsMax`. */
export const repeatEveryMsMin = 1_000
/** The wall clock must move this far against engine time before cron schedules follow it. */
export const wallStepMsMin = 500
/** A wall clock set back by up to this repeats no cron occurrence; by more, the next one is computed anew. */
export const wallSetBackMsMax = 3 * 60 * 60 * 1_000
/** Ready tasks that an explanation counts ahead of one. */
export const explainAheadMax = 1_000
/** Facts of one explanation. */
export const factsMax = 32
/** Deadlines that `stats` looks at to find the next delayed task of a queue. */
export const statsTimersMax = 4_096
/** Lanes named in the counts of a queue. */
export const topLanesMax = 10
// ---- lanes

/** Leases a minute of one lane, tasks in its bucket, time between two grants, tasks in its turn. */
export const laneRatePerMinuteMax = 60_000_000
export const laneBurstMax = 1_000_000
export const laneGapMsMax = 24 * 60 * 60 * 1_000
export const laneWeightMax = 1_000
/** Lanes of one queue that are paused or have limits of their own. */
export const laneSettingsMax = 100_000
/** Lanes of one queue without tasks and leases that are remembered until their gap is over and their bucket full. */
export const lanesIdleMax = 250_000
/** Lanes forgotten in one go. */
export const lanesForgottenAtOnce = 1_000

// ---- worker

/** Concurrency of one worker. */
export const concurrencyMax = 65_536
/**
 * Tasks that a worker leases ahead by itself, at most; the time that they should last; how often it looks at its rate; and a
 * longer time between two looks says little.
 */
export const prefetchMax = 4_096
export const prefetchCoverMs = 100
export const prefetchLookMs = 100
export const prefetchTrustMs = 2_000
/** Times that a worker's loop is begun anew within a time, default, and the pauses before: base and cap. */
export const workerRestartsDefault = 5
export const workerRestartsMax = 1_000
export const workerRestartsWithinMs = 60_000
export const workerRestartBaseMs = 200
export const workerRestartCapMs = 5_000
/** Bodies of one workflow that a program runs at a time, default, and notes between executions that it tells at a time. */
export const workflowConcurrencyDefault = 32
export const workflowNotesAtOnce = 16
/** Runs of a body that the engine itself could not bring to an end, before the execution is given up. */
export const workflowAttemptsMax = 100
/** Attempts to tell an execution that is not there yet: about a day. */
export const workflowNoteAttemptsMax = 1_500
/** How long a parent holds its worker for a child, and when it looks after one that may have ended without a word. */
export const workflowChildWaitMs = 200
export const workflowChildLookMs = 600_000
export const workflowJoinedLookMs = 30_000
/** Between two looks of a run that waits for a deferred and does other things, whether somebody has completed it. */
export const workflowLookMs = 1_000
/** Queues of one worker, and the weight of one. */
export const workerQueuesMax = 256
export const workerWeightMax = 1_000
/** Time a draining worker gives its running handlers, default. */
export const graceMsDefault = 10_000
/**
 * Time without a delivery after which a worker with free handlers asks whether its stream is forgotten, default; the pause
 * between two times that it was doubles up to the cap. What a program may set it to is from a second to that cap.
 */
export const watchdogMsDefault = 30_000
export const watchdogMsMin = 1_000
export const watchdogMsMax = 3_600_000
/** Pause before a take from a persisted queue asks a manager again that was away. */
export const takeRetryMs = 500
/** Ids of one persisted queue that were offered again after a cleanup, and whose latest element a program remembers. */
export const reofferedIdsKeptMax = 10_000
/** Reconnect back-off of a client: base and cap, full jitter. */
export const reconnectBaseMs = 100
export const reconnectCapMs = 5_000
/** What a client may set that cap to. */
export const reconnectCapMsMin = 10
export const reconnectCapMsMax = 3_600_000
/** Time that what was in flight waits for the session to resume, before it fails as indefinite. */
export const resendMs = 30_000
/** Time a peer has to take the last word on a connection, before it is cut. */
export const closeMs = 2_000
/** Addresses that one client tries. */
export const addressesMax = 16
/** Time to open one TCP connection. */
export const dialMs = 5_000

// ---- crawl

/** Bytes of one HTML page and of one image, on the wire and decoded. */
export const pageBytesMax = 10 * 1_024 * 1_024
export const imageBytesMax = 64 * 1_024 * 1_024
/** Redirect hops of one fetch. */
export const redirectsMax = 10
/** Characters of a URL (Heritrix and Scrapy use the same). */
export const urlCharsMax = 2_083
/** Links and images kept of one page; more is counted and reported. */
export const linksPerPageMax = 5_000
/** Pages of one crawl that a worker remembers to have been given; and crawls of which it does. */
export const crawlGivenMax = 100_000
export const crawlsGivenMax = 8
/** Time for response headers, for silence inside a body, and for one whole page. */
export const headersMs = 30_000
export const bodyIdleMs = 30_000
export const pageMs = 5 * 60_000
/** Longest Retry-After that a crawl honours. */
export const retryAfterMsMax = 60 * 60_000
/** Bytes of one file that is neither page nor image, on the wire and decoded. */
export const fileBytesMax = 64 * 1_024 * 1_024 * 1_024
/** A body that stays below this speed over a whole window, in which we wait for it, is given up as `slow`. */
export const bytesPerSecondMin = 1_024
export const speedWindowMs = 30_000
/** Decoded bytes of a body per byte on the wire, once there are more than the free ones. */
export const decodeRatioMax = 100
export const decodeRatioFreeBytes = 1_024 * 1_024
/** Bytes of a body that are hashed and written at once. */
export const blockBytes = 256 * 1_024
/** Bytes of a partial file that are copied and hashed at once. */
export const adoptBytes = 1_024 * 1_024
/** A download saves a checkpoint after this many new bytes, or when there are any after this time. */
export const checkpointEveryBytes = 4 * 1_024 * 1_024
export const checkpointEveryMs = 5_000
/** Time that a download which fails or is interrupted has for its last checkpoint. */
export const checkpointLastMs = 2_000
/** Between two reports of a download's progress. */
export const progressEveryMs = 1_000
/** Characters of an ETag and of a Content-Type that a checkpoint carries. */
export const validatorCharsMax = 512
export const contentTypeCharsMax = 256
/** A Last-Modified that is this much older than the Date beside it names one version (RFC 9110, 8.8.2.2). */
export const lastModifiedStrongMs = 60_000
/** Age at which a temporary file that nobody has written to is taken for left behind. */
export const temporaryMsMax = 24 * 60 * 60_000
