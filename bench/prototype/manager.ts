/**
 * The manager of the prototype: one queue in an array, tasks pushed to workers and results to the master as far as their
 * credit goes. Payloads are bytes to it. Nothing is leased: a worker that ends takes its tasks with it.
 */
import { createServer, type Socket } from "node:net"
import { listen } from "../harness/listen.ts"
import { serve } from "../harness/role.ts"
import { Outbox, readFrames, Type } from "./frames.ts"

interface Peer {
  readonly socket: Socket
  readonly out: Outbox
  credit: number
  resultCredit: number
}

const peers: Array<Peer> = []
/** Tasks by number; undefined: its result has come. Begins anew when all have. */
const tasks: Array<Uint8Array | undefined> = []
let next = 0
let done = 0
const results: Array<Uint8Array> = []
let nextResult = 0

/** Tasks of one worker in a round: what is there is shared out. */
const shareMost = 256
let scheduled = false

const round = (): void => {
  scheduled = false
  // Another one is first each time: all get their share of the few, too.
  peers.push(...peers.splice(0, 1))
  for (let more = true; more && next < tasks.length; ) {
    more = false
    for (const peer of peers) {
      const count = Math.min(peer.credit, shareMost, tasks.length - next)
      for (let i = 0; i < count; i++) {
        peer.out.bytes(Type.task, next, tasks[next]!)
        next++
      }
      peer.credit -= count
      if (count > 0) more = true
    }
  }
  for (const peer of peers) {
    for (; peer.resultCredit > 0 && nextResult < results.length; peer.resultCredit--) {
      peer.out.bytes(Type.result, 0, results[nextResult++]!)
    }
  }
  if (nextResult === results.length) {
    results.length = 0
    nextResult = 0
  }
  for (const { out } of peers) out.flush()
}

const schedule = (): void => {
  if (scheduled) return
  scheduled = true
  setImmediate(round)
}

const commit = (number: number, result: Uint8Array): void => {
  if (number >= next || tasks[number] === undefined) return
  tasks[number] = undefined
  results.push(result)
  if (++done < tasks.length) return
  tasks.length = 0
  next = 0
  done = 0
}

const server = createServer({ noDelay: true }, (socket) => {
  const peer: Peer = { socket, out: new Outbox(socket), credit: 0, resultCredit: 0 }
  peers.push(peer)
  socket.on("error", () => {})
  socket.on("close", () => peers.splice(peers.indexOf(peer), 1))
  readFrames(
    socket,
    (type, number, input, from, to) => {
      switch (type) {
        case Type.putLast:
          tasks.push(input.subarray(from, to))
          return peer.out.number(Type.taken, number)
        case Type.put:
          return void tasks.push(input.subarray(from, to))
        case Type.commit:
          return commit(number, input.subarray(from, to))
        case Type.credit:
          peer.credit += number
          return
        case Type.resultCredit:
          peer.resultCredit += number
          return
        case Type.held:
          return peer.out.number(Type.held, tasks.length - done + results.length - nextResult)
      }
    },
    schedule
  )
})

serve({ port: () => listen(server) }, async () => {
  for (const { socket } of peers) socket.destroy()
  server.close()
})
