/**
 * Threats to a manager, by the numbers of docs/security.md, where it takes processes to see them: what is listened on,
 * memory, descriptors, terminals, command lines, tasks that end their workers.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import * as net from "node:net"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { afterAll } from "vitest"
import * as Client from "../../src/Client.ts"
import * as Limits from "../../src/Limits.ts"
import { Code } from "../../src/model/Refusal.ts"
import * as TaskQueue from "../../src/TaskQueue.ts"
import * as ClientMessages from "../../src/wire/ClientMessages.ts"
import { frame } from "../../src/wire/Frames.ts"
import { ClientType as C, ManagerType as M } from "../../src/wire/Vocabulary.ts"
import { Raw } from "../contract/raw.ts"
import { Poison } from "./fixtures/poison.ts"
import {
  asClient,
  childrenOf,
  fixture,
  key,
  main,
  millrace,
  type Program,
  run,
  serve,
  startCommand,
  stopAll,
  temporaryFolder,
  until
} from "./support.ts"

afterAll(stopAll)

const linux = process.platform === "linux"

const Words = TaskQueue.make("words", { payload: Schema.String, result: Schema.String })

/** One task from its put to its commit. */
const work = Effect.gen(function* () {
  yield* Words.put("word")
  const [lease] = yield* Words.lease()
  yield* Words.commit(lease!, "done")
})

describe("a port that is opened by mistake", () => {
  /** The addresses that somebody listens on at this port, as the system has them. */
  const listeners = (port: number): ReadonlyArray<string> =>
    ["/proc/net/tcp", "/proc/net/tcp6"].flatMap((table) =>
      readFileSync(table, "utf8")
        .split("\n")
        .slice(1)
        .map((line) => line.trim().split(/\s+/))
        .filter(([, local, , state]) => state === "0A" && Number.parseInt(local!.split(":")[1]!, 16) === port)
        .map(([, local]) => Buffer.from(local!.split(":")[0]!, "hex").reverse().join("."))
    )

  const credentials = ["none", "an empty file", "a key"] as const
  const ways = [[], ["--network", "--advertise", "127.0.0.1"], ["--insecure-network"]] as const
  const hosts = [undefined, "127.0.0.1", "0.0.0.0"] as const

  it.skipIf(!linux)(
    "does not open: every bind with every kind of credentials, with and without TLS (M1)",
    async () => {
      const folder = temporaryFolder()
      const file = join(folder, "credentials")
      writeFileSync(file, "# nobody\n", { mode: 0o600 })
      let started = 0
      const cells = hosts.flatMap((host) => ways.flatMap((way) => credentials.map((who) => ({ host, way, who }))))
      const check = async ({ host, way, who }: (typeof cells)[number]): Promise<void> => {
        const about = `${host ?? "no host"}, ${way[0] ?? "plain"}, ${who}`
        const to = host === undefined ? [] : ["--host", host]
        const from = who === "an empty file" ? ["--credentials", file] : []
        const env = who === "a key" ? {} : { MILLRACE_AUTHKEY: undefined }
        const program = millrace(["serve", "--memory", "--port", "0", ...to, ...way, ...from], { cwd: folder, env })
        const wide = host === "0.0.0.0" || (host === undefined && way[0] === "--network")
        if (who === "a key" && !(wide && way.length === 0)) {
          const [, at, port] = await program.said(/listening on (\S+):(\d+)/)
          assert.strictEqual(at, wide ? "0.0.0.0" : "127.0.0.1", about)
          assert.deepStrictEqual(listeners(Number(port)), [at!], about)
          program.kill("SIGTERM")
          const ended = await program.ended()
          assert.strictEqual(ended.code, 0, about)
          if (wide && way[0] === "--insecure-network") assert.match(ended.stderr, /WARN .*without TLS/)
          started++
          return
        }
        const ended = await program.ended()
        assert.strictEqual(ended.code, 1, `${about}: ${ended.stderr}`)
        assert.notMatch(ended.stderr, /listening on/)
        const missing = {
          none: /the key is missing/,
          "an empty file": /which has none/,
          "a key": /only for this machine/
        }
        assert.match(ended.stderr, missing[who], about)
      }
      const left = [...cells]
      await Promise.all(
        Array.from({ length: 2 }, async () => {
          for (let cell = left.pop(); cell !== undefined; cell = left.pop()) await check(cell)
        })
      )
      assert.strictEqual(cells.length, 27)
      assert.strictEqual(started, 8)
    },
    120_000
  )
})

/** A line of /proc/PID/status, in bytes. */
const memoryOf = ({ pid }: Program, what: "VmRSS" | "VmPeak"): number =>
  1_024 * Number(new RegExp(`^${what}:\\s+(\\d+) kB`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1])

const mebibyte = 1_048_576

describe("lengths that lie", () => {
  const header = (length: number): Uint8Array => {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setUint32(0, length)
    return bytes
  }
  /** A frame whose body has these bytes in the place of those, which it has once. */
  const forged = (message: ClientMessages.ClientMessage, from: string, to: string): Uint8Array => {
    const hex = Buffer.from(frame((w) => ClientMessages.encode(w, message)).subarray(4)).toString("hex")
    assert.strictEqual(hex.split(from).length, 2, `${from} in ${hex}`)
    const body = Buffer.from(hex.replace(from, to), "hex")
    return Buffer.concat([header(body.byteLength), body])
  }
  const open = { type: C.open, request: 1, name: "nnnn", fingerprint: Uint8Array.of(7, 7, 7), schema: "" } as const
  const opening = { ...open, accepts: [], policy: [] }
  /** The first length that is too much, 2^31 and 2^32-1; read with a sign these two are negative. */
  const lengths = (limit: number): ReadonlyArray<number> => [limit + 1, 2 ** 31, 2 ** 32 - 1]
  const inner: ReadonlyArray<Uint8Array> = ["80000000", "ffffffff", "7fffffff"].flatMap((length) => [
    forged({ type: C.renew, request: 1, held: [9, 9, 9] as ReadonlyArray<number> }, "93090909", `dd${length}090909`),
    forged(opening, "a46e6e6e6e", `db${length}6e6e6e6e`),
    forged(opening, "c403070707", `c6${length}070707`)
  ])

  it.skipIf(!linux)(
    "are refused before anything is kept: 2^31, 2^32-1, one above the limit, in every place (M10)",
    async () => {
      const { port, program } = await serve()
      let refused = 0
      const lie = async (bytes: Uint8Array, login: boolean): Promise<void> => {
        const raw = new Raw(port)
        if (login) await raw.login({ key })
        raw.write(bytes)
        await raw.refused(Code.protocol)
        raw.destroy()
        refused++
      }
      const round = async (): Promise<void> => {
        for (const length of lengths(Limits.preAuthFrameBytesMax)) await lie(header(length), false)
        for (const length of lengths(Limits.frameBytesMax))
          await lie(Buffer.concat([header(length), new Uint8Array(64)]), true)
        for (const bytes of inner) await lie(bytes, true)
      }
      for (let i = 0; i < 20; i++) await round()
      // What the runtime does meanwhile for itself is not the lies'. It has its time in ten measurements.
      const grown: Array<number> = []
      const peak = memoryOf(program, "VmPeak")
      for (let i = 0; i < 10 && (grown.length === 0 || Math.min(...grown) >= mebibyte); i++) {
        const before = memoryOf(program, "VmRSS")
        for (let j = 0; j < 4; j++) await round()
        grown.push(memoryOf(program, "VmRSS") - before)
      }
      // One announced frame after another, as large as may be, of which nothing more comes.
      const open: Array<Raw> = []
      for (let i = 0; i < 20; i++) {
        const raw = new Raw(port)
        await raw.login({ key })
        raw.write(Buffer.concat([header(Limits.frameBytesMax), new Uint8Array(64)]))
        open.push(raw)
      }
      await asClient(port, work)
      const reserved = memoryOf(program, "VmPeak") - peak
      for (const raw of open) raw.destroy()
      console.log(`${refused} lies; RSS grew by ${grown.join(", ")} bytes, what was reserved by ${reserved}`)
      assert.isBelow(Math.min(...grown), mebibyte)
      // Twenty frames of 20 MiB are 400.
      assert.isBelow(reserved, 100 * mebibyte)
    },
    120_000
  )
})

describe("a flood of connections", () => {
  const connects = 5_000
  /** This process has an end of each connection. */
  const enough =
    linux && Number(/^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1]) > 6_000
  if (!enough) console.log("a flood of connections: not run, it takes Linux and 6,000 descriptors")

  for (const descriptors of [256, undefined]) {
    const how = descriptors === undefined ? "with its places taken" : `with ${descriptors} descriptors`
    it.skipIf(!linux)(
      `leaves those alone who are in, ${how}, and is over when it is over (M13)`,
      async () => {
        const limited = ["-c", `ulimit -n ${descriptors ?? '"$(ulimit -n)"'}; exec "$0" "$@"`, process.execPath, main]
        const program = startCommand("bash", [...limited, "serve", "--memory", "--port", "0"])
        const [, text] = await program.said(/listening on \S+:(\d+)/)
        const port = Number(text)
        const sockets: Array<net.Socket> = []
        let settled = 0
        let turnedAway = 0
        let most = 0
        const held = (): number => {
          const count = readdirSync(`/proc/${program.pid}/fd`).length
          most = Math.max(most, count)
          return count
        }
        const flood = Effect.gen(function* () {
          yield* work
          for (let i = 0; i < connects; i++) {
            const socket = net.connect({ host: "127.0.0.1", port })
            let counted = false
            const count = (): void => {
              if (!counted) settled++
              counted = true
            }
            socket.on("connect", count).on("error", count).on("close", count)
            socket.on("data", (said) => {
              if (said.includes("too many connections")) turnedAway++
            })
            sockets.push(socket)
            if (i % 250 === 249) {
              held()
              yield* work
            }
          }
          yield* Effect.promise(() =>
            until("each has a connection or none", () => held() > 0 && settled === connects, 60_000)
          )
          for (let i = 0; i < 20; i++) yield* work
        })
        await Effect.runPromise(
          flood.pipe(
            Effect.provide(Client.layerTcp({ port, auth: { key } })),
            Effect.timeout("90 seconds"),
            Effect.scoped
          )
        )
        assert.strictEqual(sockets.length, connects)
        // It was at its end: all descriptors, or all places of strangers.
        assert.isAtLeast(
          most,
          descriptors === undefined ? Limits.connectionsUnauthenticatedLoopbackMax : descriptors - 8
        )
        // Who has no place is told so and not kept; some are on their way out, as many as are accepted at once.
        if (descriptors === undefined) {
          assert.isAbove(turnedAway, 0)
          assert.isBelow(most, Limits.connectionsUnauthenticatedLoopbackMax + 600)
        }
        console.log(`${connects} connects ${how}: at most ${most} descriptors, ${turnedAway} turned away`)
        for (const socket of sockets) socket.destroy()
        await until("the flood is gone", () => held() < 100)
        await asClient(port, work)
        assert.notMatch(program.stderr, /internal|EMFILE|Error/)
        program.kill("SIGTERM")
        assert.strictEqual((await program.ended()).code, 0)
      },
      120_000
    )
  }
})

const hostile = "\u001b[2J\u001b]0;owned\u0007\r\nmillrace: all is well\u202e\u2066\u009b31m\u007f\u200b\u2028</script>"
const plain = /^[ -~\n]*$/

describe("text that moves terminals", () => {
  it("of peers is printed with escapes, by every command, for people and for machines (M17)", async () => {
    const { port, program } = await serve()
    const to = ["--port", String(port)]
    const tricky = TaskQueue.make("traps", { payload: Schema.Json, policy: { maxAttempts: 1 } })
    const taskIds = await asClient(
      port,
      Effect.gen(function* () {
        const options = { key: hostile, labels: [hostile] }
        const { taskId: killed } = yield* tricky.put({ [hostile]: hostile }, { ...options, id: hostile })
        const [lease] = yield* tricky.lease()
        yield* tricky.kill(lease!, hostile)
        const { taskId: waiting } = yield* tricky.put(hostile, { ...options, id: `${hostile}2` })
        yield* tricky.put(hostile, { ...options, id: `${hostile}3` })
        yield* tricky.repeat(hostile, { every: "1 hour" }, hostile)
        yield* tricky.lane(hostile).pause
        return [killed, waiting]
      })
    )
    const commands: ReadonlyArray<ReadonlyArray<string>> = [
      ["browse", "traps"],
      ["browse", "traps", "--json"],
      ["dead", "traps"],
      ["dead", "traps", "--json"],
      ...taskIds.flatMap((id) => [
        ["explain", "traps", id],
        ["explain", "traps", id, "--json"]
      ]),
      ["explain", "traps"],
      ["stats"],
      ["stats", "traps"],
      ["stats", "traps", "--json"],
      ["repeat", "traps"],
      ["repeat", "traps", "--json"],
      ["lane", "traps", hostile, "--resume"],
      ["get", "traps"]
    ]
    const without: Array<string> = []
    for (const args of commands) {
      const { code, stderr, stdout } = await run([...args, ...to])
      assert.strictEqual(code, 0, `${args.join(" ")}: ${stderr}`)
      for (const text of [stdout, stderr]) {
        assert.match(text, plain, JSON.stringify(text))
        assert.notMatch(text, /^millrace: all is well/m)
      }
      if (!stdout.includes("\\u001b[2J")) without.push(args.join(" "))
      // For machines it means what it meant.
      if (args.includes("--json"))
        assert.include(
          JSON.stringify(
            stdout
              .trim()
              .split("\n")
              .map((line) => JSON.parse(line))
          ),
          "\\u001b[2J"
        )
      if (args[0] === "get") assert.strictEqual(JSON.parse(stdout), hostile)
    }
    // The others have such a text to show.
    assert.deepStrictEqual(without, ["explain traps", "stats"])
    const errors = [
      ["stats", hostile],
      ["get", hostile],
      ["put", "traps", hostile],
      ["stats", "--host", hostile],
      ["stats", "--user", hostile]
    ]
    for (const args of errors) {
      const { code, stderr, stdout } = await run([...args, ...(args.includes("--host") ? [] : to)])
      assert.strictEqual(code, 1, args.join(" "))
      assert.match(stdout + stderr, plain, JSON.stringify(stderr))
      assert.notMatch(stderr, /^millrace: all is well/m)
    }
    program.kill("SIGTERM")
    assert.match((await program.ended()).stderr, plain)
  }, 180_000)

  it("of a manager that is none is printed with escapes, in one line (M17)", async () => {
    const server = net.createServer((socket) => {
      const closing = Buffer.from(hostile)
      const body = Buffer.concat([Uint8Array.of(0x93, M.closing, Code.protocol, 0xd9, closing.byteLength), closing])
      const length = new Uint8Array(4)
      new DataView(length.buffer).setUint32(0, body.byteLength)
      socket.on("error", () => {}).end(Buffer.concat([length, body]))
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    try {
      const { port } = server.address() as net.AddressInfo
      for (const debug of [[], ["--debug"]]) {
        const { code, stderr } = await run(["stats", "--port", String(port), ...debug])
        assert.strictEqual(code, 1)
        assert.match(stderr, plain, JSON.stringify(stderr))
        if (debug.length === 0) assert.strictEqual(stderr.trim().split("\n").length, 1, stderr)
        assert.include(stderr, "\\u001b[2J")
      }
    } finally {
      server.close()
    }
  }, 60_000)
})

describe("secrets", () => {
  it.skipIf(!linux)(
    "are in no command line, log or report, of managers, workers, crawls and failed logins (M19)",
    async () => {
      const folder = temporaryFolder()
      const secret = "only-in-files-0123456789-abcdefghijklmnopqrstuv"
      const wrong = "another-key-0123456789-abcdefghijklmnopqrstuvwx"
      const payload = "what-the-payload-says"
      const [good, bad] = [join(folder, "good"), join(folder, "bad")]
      writeFileSync(good, `${secret}\n`, { mode: 0o600 })
      writeFileSync(bad, `${wrong}\n`, { mode: 0o600 })
      const said: Array<string> = []
      const lines: Array<string> = []
      const lookAt = (pid: number): void => {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
        assert.isNotEmpty(line)
        lines.push(line)
        for (const child of childrenOf(pid)) lookAt(child)
      }
      const none = { MILLRACE_AUTHKEY: undefined }
      const manager = await serve(["--authkey-file", good], { env: none })
      const by = (file: string) => ["--port", String(manager.port), "--authkey-file", file]
      lookAt(manager.program.pid)
      const worker = millrace(["work", "--module", fixture("worker.ts"), ...by(good), "--debug"], { env: none })
      const other = millrace(["work", "--module", fixture("worker.ts"), "--port", String(manager.port), "--debug"], {
        env: { MILLRACE_AUTHKEY: wrong }
      })
      await run(["put", "jobs", JSON.stringify({ name: payload }), "--create", ...by(good)], { env: none })
      await run(["put", "jobs", JSON.stringify({ name: "next", ms: 1 }), ...by(good)], { env: none })
      await worker.said(/end next/)
      lookAt(worker.pid)
      said.push((await other.ended()).stderr)
      for (const args of [
        ["stats", ...by(bad)],
        ["stats", ...by(bad), "--debug"],
        ["stats", "--user", "nobody", ...by(good), "--debug"],
        ["stats", "--authkey-env", "WRONG", "--port", String(manager.port), "--debug"]
      ]) {
        const ended = await run(args, { env: { MILLRACE_AUTHKEY: undefined, WRONG: wrong } })
        assert.strictEqual(ended.code, 1, args.join(" "))
        said.push(ended.stdout, ended.stderr)
      }
      // A page that is answered when the workers of the crawl have been seen.
      let answer: () => void = () => {}
      const asked = new Promise<void>((resolve) => {
        answer = resolve
      })
      let hit: () => void = () => {}
      const reached = new Promise<void>((resolve) => {
        hit = resolve
      })
      const site = createServer((_, response) => {
        hit()
        void asked.then(() => response.setHeader("content-type", "text/html").end("<p>no images</p>"))
      })
      await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", resolve))
      try {
        const url = `http://127.0.0.1:${(site.address() as net.AddressInfo).port}/`
        const crawl = millrace(
          ["crawl", url, "--workers", "2", "--out", join(folder, "out"), "--authkey-file", good, "--debug"],
          { env: none }
        )
        await reached
        const seen = lines.length
        lookAt(crawl.pid)
        assert.isAtLeast(lines.length - seen, 3, "the crawl and its two workers")
        answer()
        const ended = await crawl.ended(60_000)
        assert.strictEqual(ended.code, 0, ended.stderr)
        said.push(ended.stdout, ended.stderr)
      } finally {
        answer()
        site.close()
      }
      for (const program of [worker, manager.program]) {
        program.kill("SIGTERM")
        const ended = await program.ended()
        said.push(ended.stdout, ended.stderr)
      }
      assert.match(manager.program.stderr, /login refused/)
      assert.isAtLeast(lines.length, 5)
      const all = [...said, ...lines].join("\n")
      for (const hidden of [secret, wrong]) {
        for (const how of ["utf8", "hex", "base64", "base64url"] as const) {
          assert.notInclude(all, Buffer.from(hidden).toString(how), how)
        }
      }
      // Nor does the manager say what a payload says.
      assert.notInclude(manager.program.stderr, payload)
    },
    120_000
  )
})

describe("a task that ends its worker", () => {
  it("has as many attempts as it may, then is a dead letter; the next one is done (M21)", async () => {
    const { port } = await serve()
    const folder = temporaryFolder()
    const begun: Array<string> = []
    const { bad, good } = await asClient(
      port,
      Effect.gen(function* () {
        const { taskId: bad } = yield* Poison.put({ go: join(folder, "go") })
        const { taskId: good } = yield* Poison.put({ go: null })
        return { bad, good }
      })
    )
    const look = () => asClient(port, Poison.stats)
    for (let attempt = 1; attempt <= 2; attempt++) {
      const worker = millrace(["work", "--module", fixture("poison.ts"), "--port", String(port)])
      await worker.said(new RegExp(`begin poison ${attempt}`))
      // Its manager has heard that it began: the explanation says so.
      await until("the handler is known to run", async () => {
        const explained = await asClient(port, Poison.explain(bad))
        return explained._tag === "Leased" && explained.started
      })
      writeFileSync(join(folder, `go.${attempt}`), "")
      assert.strictEqual((await worker.ended()).code, 3)
      begun.push(...(worker.stderr.match(/begin \w+ \d/g) ?? []))
    }
    const last = millrace(["work", "--module", fixture("poison.ts"), "--port", String(port)])
    await last.said(/begin good 1/)
    await until("it is dead", async () => (await look()).dead === 1)
    const outcomes = await asClient(port, Effect.all([Poison.outcome(bad), Poison.outcome(good)]))
    assert.deepStrictEqual(
      outcomes.map(({ _tag }) => _tag),
      ["Dead", "Success"]
    )
    assert.deepStrictEqual(
      begun.filter((line) => line.includes("poison")),
      ["begin poison 1", "begin poison 2"]
    )
    last.kill("SIGTERM")
    assert.strictEqual((await last.ended()).code, 0)
    assert.notMatch(last.stderr, /begin poison/)
  }, 90_000)
})
