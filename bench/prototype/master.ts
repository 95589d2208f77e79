/** The master of the prototype: a promise for each call, the puts of one turn of the event loop in one write. */
import { once } from "node:events"
import { connect } from "node:net"
import { ExactlyOnce, type PeerPass } from "../harness/exactly-once.ts"
import { required, serve } from "../harness/role.ts"
import type { Task } from "../harness/urls.ts"
import { Outbox, readFrames, Type } from "./frames.ts"

const credit = 65_536
const socket = connect({ port: Number(required("BENCH_PORT")), host: "127.0.0.1", noDelay: true })
const out = new Outbox(socket)
const check = new ExactlyOnce()
const calls = new Map<number, () => void>()
let lastCall = 0
let held: (count: number) => void = () => {}
let got = 0
let scheduled = false

const flush = (): void => {
  scheduled = false
  out.flush()
}

const schedule = (): void => {
  if (scheduled) return
  scheduled = true
  setImmediate(flush)
}

readFrames(
  socket,
  (type, number, input, from, to) => {
    switch (type) {
      case Type.taken:
        calls.get(number)?.()
        return void calls.delete(number)
      case Type.held:
        return held(number)
      case Type.result:
        got++
        return check.take(JSON.parse(input.toString("utf8", from, to)) as { url: string; ok: boolean })
    }
  },
  () => {
    if (got < credit / 16) return
    out.number(Type.resultCredit, got)
    got = 0
    schedule()
  }
)

const ready = async (): Promise<void> => {
  if (socket.connecting) await once(socket, "connect")
  socket.on("close", () => check.fail("the connection to the manager ended"))
  out.number(Type.resultCredit, credit)
  out.flush()
}

const put = (tasks: ReadonlyArray<Task>, from: number, to: number): Promise<void> =>
  new Promise((resolve) => {
    lastCall = (lastCall + 1) >>> 0
    calls.set(lastCall, resolve)
    for (let i = from; i < to; i++) {
      const last = i === to - 1
      out.text(last ? Type.putLast : Type.put, last ? lastCall : 0, JSON.stringify(tasks[i]!))
    }
    schedule()
  })

const rest = (): Promise<number> =>
  new Promise((resolve) => {
    held = resolve
    out.number(Type.held, 0)
    schedule()
  })

const pass = async (options: PeerPass): Promise<number> => (await check.run(options, put, rest)).seconds

serve({ ready, pass }, async () => {
  socket.removeAllListeners("close")
  socket.destroy()
})
