/** What SQLite commits: one row a transaction, write-ahead log, `synchronous = FULL`. */
import { DatabaseSync } from "node:sqlite"
import { monotonicMs, required, serve } from "../harness/role.ts"

const database = new DatabaseSync(required("BENCH_FILE"))
database.exec(
  "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE rounds (id INTEGER PRIMARY KEY, data BLOB)"
)
const put = database.prepare("INSERT OR REPLACE INTO rounds (id, data) VALUES (?, ?)")
/** The file stays small. */
const rows = 256
let commits = 0

/** Commits of rows of so many bytes, a second. */
const rate = ({ bytes, ms }: { bytes: number; ms: number }): number => {
  const data = new Uint8Array(bytes).fill(0x61)
  const first = commits
  const from = monotonicMs()
  while (monotonicMs() - from < ms) put.run(commits++ % rows, data)
  return ((commits - first) * 1_000) / (monotonicMs() - from)
}

serve({ ready: () => true, rate }, async () => database.close())
