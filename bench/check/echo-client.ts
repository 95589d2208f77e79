/** What plain sockets do between two processes: small messages, batched, one a write, and one at a time. */
import { once } from "node:events"
import { connect } from "node:net"
import { percentile } from "../harness/report.ts"
import { monotonicMs, required, serve, usage } from "../harness/role.ts"
import { Outbox, readFrames, Type } from "../prototype/frames.ts"

const text = JSON.stringify({ url: "x".repeat(60) })
const socket = connect({ port: Number(required("BENCH_PORT")), host: "127.0.0.1", noDelay: true })
const out = new Outbox(socket)
let sent = 0
let received = 0
/** Called with how many came in a chunk. */
let came: (count: number) => void = () => {}
let inChunk = 0

readFrames(
  socket,
  (_type, number, input, from, to) => {
    if (number !== received++ || JSON.parse(input.toString("utf8", from, to)).url.length !== 60) {
      throw new Error(`message ${number} in the place of ${received - 1}`)
    }
    inChunk++
  },
  () => {
    const count = inChunk
    inChunk = 0
    came(count)
  }
)

const send = (): void => out.text(Type.put, sent++, text)

export interface EchoOptions {
  readonly batch: number
  readonly inFlight: number
  readonly ms: number
}

/** Messages a second, and a second of this process' CPU time. */
export interface EchoRate {
  readonly perSecond: number
  readonly perCpuSecond: number
}

/** With so many under way; `batch` of them a write, when the answers to so many have come. */
const rate = ({ batch, inFlight, ms }: EchoOptions): Promise<EchoRate> =>
  new Promise((resolve) => {
    const first = received
    const cpuFrom = usage().cpuSeconds
    const from = monotonicMs()
    let due = inFlight
    const fill = (count: number): void => {
      due += count
      const now = monotonicMs()
      if (now - from >= ms) {
        if (received < sent) return
        const count = received - first
        return resolve({
          perSecond: (count * 1_000) / (now - from),
          perCpuSecond: count / (usage().cpuSeconds - cpuFrom)
        })
      }
      for (; due >= batch; due -= batch) {
        for (let i = 0; i < batch; i++) send()
        out.flush()
      }
    }
    came = fill
    fill(0)
  })

/** Milliseconds there and back of one message at a time: the median. */
const roundTrip = async ({ samples }: { samples: number }): Promise<number> => {
  const times = new Float64Array(samples)
  for (let i = 0; i < samples; i++) {
    const from = monotonicMs()
    await new Promise<void>((resolve) => {
      came = () => resolve()
      send()
      out.flush()
    })
    times[i] = monotonicMs() - from
  }
  return percentile(times, 0.5)
}

const ready = async (): Promise<void> => {
  if (socket.connecting) await once(socket, "connect")
}

serve({ ready, rate, roundTrip }, async () => void socket.destroy())
