/** A worker of the prototype: as many tasks as a worker of Millrace holds; the results of a chunk leave in one write. */
import { once } from "node:events"
import { connect } from "node:net"
import process from "node:process"
import { required, serve } from "../harness/role.ts"
import { Outbox, readFrames, Type } from "./frames.ts"

const credit = 64 + 1_024
const socket = connect({ port: Number(required("BENCH_PORT")), host: "127.0.0.1", noDelay: true })
const out = new Outbox(socket)
let taken = 0

const handle = ({ url }: { readonly url: string }) => ({ url, ok: true })

readFrames(
  socket,
  (_type, number, input, from, to) => {
    const payload = JSON.parse(input.toString("utf8", from, to)) as { url: string }
    out.text(Type.commit, number, JSON.stringify(handle(payload)))
    taken++
  },
  () => {
    if (taken > 0) out.number(Type.credit, taken)
    taken = 0
    out.flush()
  }
)

const ready = async (): Promise<void> => {
  if (socket.connecting) await once(socket, "connect")
  socket.on("close", () => process.exit(1))
  out.number(Type.credit, credit)
  out.flush()
}

serve({ ready }, async () => {
  socket.removeAllListeners("close")
  socket.destroy()
})
