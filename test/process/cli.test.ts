/** The command line as a stranger meets it: exit codes, one clear line per human error, no stack trace unless asked. */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { afterAll, beforeAll } from "vitest"
import {
  assertOneLine,
  fixture,
  freePort,
  key,
  millrace,
  run,
  type Serving,
  serve,
  stopAll,
  temporaryFolder
} from "./support.ts"

const page = "http://127.0.0.1:1/"
let manager: Serving
let port: string

beforeAll(async () => {
  manager = await serve()
  port = String(manager.port)
})
afterAll(stopAll)

describe.concurrent("human errors end with code 1 and one line", () => {
  it("nobody listens: the line names the address and the remedy", async () => {
    const free = await freePort()
    const pattern = new RegExp(`127\\.0\\.0\\.1:${free} \\(connection refused\\).*millrace serve`)
    assertOneLine(await run(["stats", "--port", String(free)]), pattern)
  })

  it("the host name is not known", async () => {
    assertOneLine(await run(["stats", "--host", "no-such-host.invalid"]), /no-such-host\.invalid:8001 \(the host name /)
  })

  it("a wrong key, and an unknown user, are refused by every command; no worker waits for them to become right", async () => {
    // A manager of its own: failed logins slow down others from this address.
    const own = await serve()
    const to = ["--port", `${own.port}`]
    const env = { MILLRACE_AUTHKEY: "another key" }
    const commands = [["stats"], ["put", "q", "1"], ["work", "--out", temporaryFolder()]]
    for (const ended of await Promise.all(commands.map((args) => run([...args, ...to], { env })))) {
      assertOneLine(ended, /Authentication with 127\.0\.0\.1:\d+ failed .*same key/)
    }
    assertOneLine(await run(["stats", ...to, "--user", "nobody"]), /Authentication .* failed/)
    assert.match(own.program.stderr, /WARN {2}login refused \(peer: 127\.0\.0\.1:\d+, reason: .+\)/)
    // More at once than have their turn soon are told to come later.
    const many = await Promise.all(Array.from({ length: 8 }, () => run(["stats", ...to, "--user", "nobody"])))
    for (const ended of many) assertOneLine(ended, /Authentication .* failed|too many failed logins; try again/)
    assert.isTrue(many.some(({ stderr }) => stderr.includes("too many failed logins")))
  }, 60_000)

  it("no key at all: the line says how to give one", async () => {
    const ended = await run(["stats", "--port", port], { env: { MILLRACE_AUTHKEY: undefined } })
    assertOneLine(ended, /key is missing.*--authkey-file.*MILLRACE_AUTHKEY/)
  })

  it("a named variable that is not set", async () => {
    assertOneLine(await run(["stats", "--port", port, "--authkey-env", "NOT_SET_HERE"]), /set NOT_SET_HERE/)
  })

  it("a key file that cannot be read, or not be made", async () => {
    const folder = temporaryFolder()
    assertOneLine(await run(["stats", "--authkey-file", join(folder, "none")]), /--authkey-file .*cannot be read/)
    assertOneLine(await run(["serve", "--authkey-file", join(folder, "a/b")]), /--authkey-file .*cannot be made/)
  })

  it("the port is in use", async () => {
    assertOneLine(
      await run(["serve", "--memory", "--port", port]),
      /Cannot listen on 127\.0\.0\.1:\d+: the address is in use/
    )
  })

  it("ports that do not exist", async () => {
    for (const args of [
      ["serve", "--port", "70000"],
      ["serve", "--port", "-5"],
      ["stats", "--port", "70000"]
    ]) {
      assertOneLine(await run(args), /--port is (70000|-5): use \d to 65535/)
    }
  })

  it("a wide bind without --insecure-network (M1)", async () => {
    assertOneLine(
      await run(["serve", "--memory", "--host", "0.0.0.0", "--port", "0"]),
      /0\.0\.0\.0.*--insecure-network/
    )
  })

  it("a folder that cannot be written to, for crawls and for workers", async () => {
    const file = join(temporaryFolder(), "file")
    writeFileSync(file, "")
    const out = join(file, "below")
    assertOneLine(await run(["crawl", page, "--out", out]), /--out is .*cannot be written to/)
    assertOneLine(await run(["work", "--port", port, "--out", out]), /--out is .*cannot be written to/)
  })

  it("a URL that is none, before any folder is made", async () => {
    const cwd = temporaryFolder()
    for (const url of ["example", "ftp://example/", "file:///etc/passwd"]) {
      assertOneLine(await run(["crawl", url], { cwd }), /URL is ".*": use an absolute http or https address/)
    }
    assert.isFalse(existsSync(join(cwd, "downloads")))
  })

  it("numbers of a crawl that make no sense", async () => {
    const cwd = temporaryFolder()
    const flags = [
      ["--workers", "0"],
      ["--depth", "-1"],
      ["--max-pages", "0"],
      ["--lease", "0"],
      ["--host-concurrency", "0"],
      ["--port", "70000"]
    ]
    for (const [flag = "", value = ""] of flags) {
      assertOneLine(await run(["crawl", page, flag, value], { cwd }), new RegExp(`${flag} is ${value}: use \\d`))
    }
  })

  it("a payload that is no JSON: the line shows how text is written", async () => {
    assertOneLine(await run(["put", "q", "{bad", "--port", port]), /payload is \{bad: write JSON/)
  })

  it("a name that no queue can have", async () => {
    for (const command of [
      ["put", "bad name!", "1"],
      ["get", "bad name!"]
    ]) {
      assertOneLine(await run([...command, "--port", port]), /queue is "bad name!": use 1 to 200 characters/)
    }
  })

  it("a queue that the manager does not have", async () => {
    assertOneLine(
      await run(["put", "none", "1", "--port", port]),
      /queue is "none": the manager has no such queue.*put --create/
    )
    assertOneLine(
      await run(["get", "none", "--timeout", "0", "--port", port]),
      /queue is "none": the manager has no such queue.*put --create/
    )
    assertOneLine(await run(["stats", "none", "--port", port]), /queue is "none": the manager's queues: /)
  })

  it("counts and waits below their bounds", async () => {
    assertOneLine(await run(["get", "q", "--count", "0", "--port", port]), /--count is 0: use 1 or more/)
    assertOneLine(await run(["get", "q", "--timeout", "-1", "--port", port]), /--timeout is -1: use 0 to/)
  })

  it("one id for several payloads", async () => {
    assertOneLine(await run(["put", "q", "1", "2", "--id", "x", "--port", port]), /--id is x: give one payload/)
  })

  it("--debug shows where it happened", async () => {
    const ended = await run(["stats", "--port", String(await freePort()), "--debug"])
    assert.strictEqual(ended.code, 1)
    assert.match(ended.stderr, /ConnectFailed/)
    assert.match(ended.stderr, /\n\s+at /)
  })

  it("a first page that cannot be had: the summary, then the reason, and code 1", async () => {
    const ended = await run(["crawl", page, "--json", "--workers", "1", "--out", temporaryFolder()])
    assert.strictEqual(ended.code, 1)
    assert.strictEqual(JSON.parse(ended.stdout).brokenPages, 1)
    assert.match(ended.stderr, /millrace: URL is .*no page could be read there .*ECONNREFUSED/)
    assert.notMatch(ended.stderr, /\n\s+at /)
  })
})

describe.concurrent("wrong usage ends with code 2 and says what is wrong", () => {
  const cases: ReadonlyArray<readonly [name: string, args: ReadonlyArray<string>, said: RegExp]> = [
    ["an unknown flag", ["serve", "--nonsense"], /Unrecognized flag: --nonsense/],
    ["a missing argument", ["crawl"], /Missing required argument: url/],
    ["a missing payload", ["put", "q"], /payload/],
    ["an unknown command", ["nonsense"], /Unknown subcommand "nonsense"/],
    ["a port that is no number", ["serve", "--port", "abc"], /--port.*abc/]
  ]
  for (const [name, args, said] of cases) {
    it(name, async () => {
      const ended = await run(args)
      assert.strictEqual(ended.code, 2, ended.stderr)
      assert.match(ended.stderr, said)
      assert.notMatch(ended.stderr, /\n\s+at /)
    })
  }
})

describe.concurrent("help", () => {
  for (const command of [[], ["serve"], ["work"], ["crawl"], ["put"], ["get"], ["stats"]]) {
    it(`millrace ${[...command, "--help"].join(" ")} ends with code 0`, async () => {
      const ended = await run([...command, "--help"])
      assert.strictEqual(ended.code, 0)
      assert.match(ended.stdout, /USAGE\n +millrace/)
      assert.strictEqual(ended.stderr, "")
    })
  }

  it("--version is the version of the package", async () => {
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"))
    const ended = await run(["--version"])
    assert.strictEqual(ended.stdout, `millrace v${version}\n`)
    assert.strictEqual(ended.code, 0)
  })
})

describe("keys", () => {
  it("serve makes a key file that only its owner can read, and takes it again at the next start", async () => {
    const file = join(temporaryFolder(), "millrace.key")
    const options = { env: { MILLRACE_AUTHKEY: undefined } }
    const first = await serve(["--authkey-file", file], options)
    assert.strictEqual(statSync(file).mode & 0o777, 0o600)
    const made = readFileSync(file, "utf8")
    assert.isAbove(made.trim().length, 40)
    assert.include(first.program.stderr, `made a new key in ${file}`)
    assert.notInclude(first.program.stderr, made.trim())
    first.program.kill("SIGTERM")
    await first.program.ended(5_000)

    const second = await serve(["--authkey-file", file], options)
    assert.strictEqual(readFileSync(file, "utf8"), made)
    assert.notInclude(second.program.stderr, "made a new key")
    const ended = await run(["stats", "--authkey-file", file, "--port", String(second.port)], options)
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.strictEqual(ended.stdout, "no queues yet\n")
    second.program.kill("SIGTERM")
    await second.program.ended(5_000)
  })

  it("a key on the command line works, with a warning that does not repeat it", async () => {
    const ended = await run(["stats", "--authkey", key, "--port", port])
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.match(ended.stderr, /WARN .*--authkey is visible to every user/)
    assert.notInclude(ended.stderr, key)
  })

  it("a key file that others can read is taken with a warning", async () => {
    const file = join(temporaryFolder(), "open.key")
    writeFileSync(file, `${key}\n`, { mode: 0o644 })
    const ended = await run(["stats", "--authkey-file", file, "--port", port])
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.match(ended.stderr, /can be read by other users; run: chmod 600/)
  })
})

describe("serve", () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it(`ends with code 0 on ${signal}, promptly`, async () => {
      const { program } = await serve()
      program.kill(signal)
      const ended = await program.ended(5_000)
      assert.strictEqual(ended.code, 0, ended.stderr)
      assert.strictEqual(ended.stdout, "")
    })
  }

  it("ends promptly with a client that waits, which hears that the manager is gone", async () => {
    const { port, program } = await serve()
    const at = ["--port", String(port)]
    assert.strictEqual((await run(["put", "idle", "1", "--create", ...at])).code, 0)
    // The second get is on its way as soon as the first has been printed.
    const waiting = millrace(["get", "idle", "--count", "2", ...at])
    await waiting.said(/^1$/m)
    await new Promise((resolve) => setTimeout(resolve, 200))
    program.kill("SIGTERM")
    assert.strictEqual((await program.ended(5_000)).code, 0)
    const ended = await waiting.ended(5_000)
    assert.strictEqual(ended.code, 1)
    assert.match(ended.stderr, /millrace: The (manager is draining|connection to .* was lost)/)
  })

  it("says that it is open to the network when it is", async () => {
    const { program } = await serve(["--host", "0.0.0.0", "--insecure-network"])
    await program.said(/WARN .*open to the network without TLS/)
    program.kill("SIGTERM")
    assert.strictEqual((await program.ended(5_000)).code, 0)
  })
})

describe("--address", () => {
  it("names several managers, tried in order, by host and port or by path", async () => {
    const free = await freePort()
    const socket = join(temporaryFolder(), "none.sock")
    const at = ["--address", `127.0.0.1:${free}`, "--address", socket, "--address", `127.0.0.1:${port}`]
    assert.strictEqual((await run(["put", "several", "1", "--create", ...at])).code, 0)
    assert.strictEqual((await run(["get", "several", ...at])).stdout, "1\n")
    assert.match((await run(["stats", "several", ...at])).stdout, /^several/m)
    const worker = millrace(["work", "--module", fixture("worker.ts"), ...at])
    await worker.said(new RegExp(`working for the manager at 127\\.0\\.0\\.1:${port}\\n`))
    worker.kill("SIGTERM")
    assert.strictEqual((await worker.ended()).code, 0)
    const none = await run(["stats", ...at.slice(0, 4)])
    assertOneLine(none, new RegExp(`at 127\\.0\\.0\\.1:${free}, ${socket} \\(.*: connection refused; ${socket}: `))
  }, 60_000)

  it("takes a worker to another manager when its own is gone, and back", async () => {
    const [first, second] = [await freePort(), await freePort()]
    const own = await serve(["--port", `${second}`])
    const to = ["--address", `127.0.0.1:${first}`, "--address", `127.0.0.1:${second}`]
    const worker = millrace(["work", "--module", fixture("worker.ts"), ...to])
    await worker.said(/working for the manager/)
    // One that it passed over has come.
    const other = await serve(["--port", `${first}`])
    own.program.kill("SIGTERM")
    await own.program.ended()
    await worker.said(new RegExp(`connected to the manager at 127\\.0\\.0\\.1:${first} again`))
    await serve(["--port", `${second}`])
    assert.strictEqual((await run(["put", "jobs", '{"name":"x","ms":1}', "--port", `${first}`])).code, 0)
    await worker.said(/end x/)
    other.program.kill("SIGTERM")
    await worker.said(new RegExp(`connected to the manager at 127\\.0\\.0\\.1:${second} again`))
  }, 60_000)

  it("takes an IPv6 address in brackets", async (context) => {
    const probe = millrace(["serve", "--memory", "--host", "::1", "--port", "0"])
    const listening = await probe.said(/listening on \[::1\]:(\d+)/, 5_000).catch(() => undefined)
    if (listening === undefined) return context.skip("there is no ::1 here")
    assert.strictEqual((await run(["stats", "--address", `[::1]:${listening[1]}`])).code, 0)
  })

  it("says what is wrong with one, and how it is written", async () => {
    const remedy = "use HOST:PORT, \\[IPv6\\]:PORT, the path of a socket with a slash, or a join string"
    const cases: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
      ...["", "a b", "::1:8001", "host:", "host:x", "[::1", "user@host:1"].map(
        (text) => [["--address", text], new RegExp(`--address is ".*": ${remedy}`)] as const
      ),
      [["--address", "host:0"], /--address is "host:0": use a port from 1 to 65535/],
      [["--address", "host:65536"], /--address is "host:65536": use a port from 1 to 65535/],
      [["--address", "millrace://x"], /--address is no join string: use the whole line that millrace serve --network/],
      [["--address", "a:1", "--port", "1"], /--address is given beside --port: use one of the two/],
      [["--address", "a:1", "--host", "b"], /--address is given beside --host: use one of the two/],
      [["--address", "a:1", "--join", "x"], /--address is given beside --join: use one of the two/],
      [Array.from({ length: 17 }, () => ["--address", "a:1"]).flat(), /--address is given 17 times: give at most 16/],
      [["--join", "x"], /--join is no join string: use the whole line/],
      [["--host", "two words"], /--host is "two words": name a host/],
      [["--port", "0"], /--port is 0: use 1 to 65535/]
    ]
    for (let i = 0; i < cases.length; i += 6) {
      await Promise.all(
        cases.slice(i, i + 6).map(async ([args, pattern]) => assertOneLine(await run(["stats", ...args]), pattern))
      )
    }
  }, 120_000)
})

describe("put, get and stats", () => {
  const at = (...args: ReadonlyArray<string>) => run([...args, "--port", port])

  it("what is put comes out in order, one JSON value a line", async () => {
    const put = await at("put", "orders", "--create", "1", '"two"', '{"three":[3]}')
    assert.strictEqual(put.code, 0, put.stderr)
    assert.lengthOf(put.stdout.trim().split("\n"), 3)
    assert.strictEqual(put.stderr, "")
    const got = await at("get", "orders", "--count", "3")
    assert.deepStrictEqual(got, { code: 0, signal: null, stdout: '1\n"two"\n{"three":[3]}\n', stderr: "" })
  })

  it("a switch before a payload does not swallow it, and what follows -- is never a flag", async () => {
    assert.strictEqual((await at("put", "switched", "--json", "--create", "true", "1")).code, 0)
    const ended = await run(["put", "switched", "--port", port, "--", "-1"])
    assert.strictEqual(ended.code, 0, ended.stderr)
    assert.strictEqual((await at("get", "switched", "--count", "3")).stdout, "true\n1\n-1\n")
  })

  it("an empty queue is a clear error when the call does not wait, at once or after its time", async () => {
    assert.strictEqual((await at("put", "empty", "--create", "1")).code, 0)
    assert.strictEqual((await at("get", "empty", "--timeout", "0")).stdout, "1\n")
    assertOneLine(await at("get", "empty", "--timeout", "0"), /Queue "empty" is empty\./)
    assertOneLine(await at("get", "empty", "--timeout", "1"), /Queue "empty" is empty\./)
  })

  it("a get that asks for more than there is prints what there was", async () => {
    assert.strictEqual((await at("put", "few", "--create", "1", "2")).code, 0)
    const ended = await at("get", "few", "--count", "3", "--timeout", "0")
    assert.strictEqual(ended.stdout, "1\n2\n")
    assert.strictEqual(ended.code, 1)
  })

  it("ends quietly when nobody reads its output any more, and takes no more tasks", async () => {
    const payloads = Array.from({ length: 2_000 }, (_, i) => String(i))
    assert.strictEqual((await at("put", "piped", "--create", ...payloads)).code, 0)
    const reading = millrace(["get", "piped", "--count", "2001", "--port", port])
    reading.child.stdout?.once("data", () => reading.child.stdout?.destroy())
    const ended = await reading.ended(10_000)
    assert.strictEqual(ended.code, 130)
    assert.strictEqual(ended.stderr, "")
    const { acknowledged, ready } = JSON.parse((await at("stats", "piped", "--json")).stdout)
    assert.isAbove(ready, 0)
    assert.strictEqual(acknowledged + ready, 2_000)
  })

  it("a second put with the same id is the same task", async () => {
    const [first, second] = [
      JSON.parse((await at("put", "once", "1", "--create", "--id", "a", "--json")).stdout),
      JSON.parse((await at("put", "once", "1", "--id", "a", "--json")).stdout)
    ]
    assert.strictEqual(first.duplicate, false)
    assert.deepStrictEqual(second, { taskId: first.taskId, duplicate: true })
    assert.match((await at("put", "once", "1", "--id", "a")).stdout, /^\S+ \(was there\)\n$/)
  })

  it("stats are a table for people and a line of JSON a queue for machines", async () => {
    assert.strictEqual((await at("put", "counted", "--create", "1", "2")).code, 0)
    const all = await at("stats")
    assert.strictEqual(all.code, 0)
    const [head = "", ...rows] = all.stdout.trim().split("\n")
    const columns = head.split(/ {2,}/)
    assert.deepStrictEqual(
      columns,
      "queue durability state ready delayed leased done dead cancelled workers puts/s commits/s failures/s oldest waiting".split(
        " "
      )
    )
    const row = rows.find((line) => line.startsWith("counted"))!
    assert.match(row, /^counted +memory +open +2 +0 +0 +0 +0 +0 +0 +\S+ +0 +0 +[\d.]+ \w+ +4 B$/)
    const one = await at("stats", "counted")
    assert.match(one.stdout, /^queue .*\ncounted .*\n\nper second \(last 1, 10, 60 s\) +puts /)
    assert.match(one.stdout, /\ncapacity +2 of 1000000; 0 puts wait for room\n/)
    const lines = (await at("stats", "--json")).stdout.trim().split("\n")
    const counted = lines.map((line) => JSON.parse(line)).find(({ name }) => name === "counted")
    assert.deepInclude(counted, { ready: 2, durability: "memory", paused: false, closed: "open", waitingBytes: 4 })
    assert.isAtLeast(counted.puts60s + 2, 2)
  })

  it("stats --watch shows them again and again, and ends with code 0 when it is asked to", async () => {
    assert.strictEqual((await at("put", "watched", "--create", "1")).code, 0)
    const watching = millrace(["stats", "watched", "--watch", "--port", port])
    await watching.said(/^watched .*[\s\S]*^watched /m)
    watching.kill("SIGINT")
    const ended = await watching.ended(5_000)
    assert.strictEqual(ended.code, 0, ended.stderr)
    assertOneLine(await at("stats", "never-made", "--watch"), /queue is "never-made"/)
  })
})

describe("explain and repeat", () => {
  const at = (...args: ReadonlyArray<string>) => run([...args, "--port", port])

  it("explain says why a task does not run and what limits its queue, for people and for machines", async () => {
    const { taskId } = JSON.parse((await at("put", "explained", "1", "--create", "--json")).stdout)
    const task = await at("explain", "explained", taskId)
    assert.deepStrictEqual(task, {
      code: 0,
      signal: null,
      stdout: "ready, next in line: no worker is there and nobody waits to take\n",
      stderr: ""
    })
    const json = JSON.parse((await at("explain", "explained", taskId, "--json")).stdout)
    assert.deepInclude(json, { _tag: "Ready", ahead: 0, ready: 1 })
    assert.strictEqual((await at("explain", "explained")).stdout, "no worker is there and nobody waits to take\n")
    assert.match((await at("explain", "explained", "nonsense")).stdout, /^not found: /)
    assertOneLine(await at("explain", "never-made"), /queue is "never-made"/)
  })

  it("repeat sets, lists and removes, and says what is wrong with a schedule", async () => {
    const set = await at(
      "repeat",
      "nightly",
      "clean",
      '{"n":1}',
      "--cron",
      "0 3 * * *",
      "--zone",
      "Europe/Berlin",
      "--create"
    )
    assert.strictEqual(set.code, 0, set.stderr)
    assert.match(
      set.stdout,
      /^clean {2}0 3 \* \* \* \(Europe\/Berlin\) {2}next \S+T0[12]:00:00.000Z {2}0 so far {2}\{"n":1\}\n$/
    )
    assert.strictEqual((await at("repeat", "nightly", "often", "2", "--every", "5 minutes")).code, 0)
    const listed = (await at("repeat", "nightly", "--json")).stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
    assert.deepStrictEqual(
      listed.map(({ id, payload, schedule }) => [id, schedule, payload]),
      [
        ["clean", { cron: "0 3 * * *", zone: "Europe/Berlin" }, { n: 1 }],
        ["often", { everyMs: 300_000 }, 2]
      ]
    )
    assert.strictEqual((await at("repeat", "nightly", "often", "--remove")).code, 0)
    assertOneLine(
      await at("repeat", "nightly", "often", "--remove"),
      /id is "often": queue "nightly" has no such repeat/
    )
    const bad = await at("repeat", "nightly", "x", "1", "--cron", "61 * * * *")
    assertOneLine(bad, /Queue "nightly": cron is "61 \* \* \* \*"; use five fields/)
    assertOneLine(
      await at("repeat", "nightly", "x", "1", "--cron", "* * * * *", "--zone", "Moon"),
      /zone is "Moon"; use/
    )
    assertOneLine(await at("repeat", "nightly", "x", "1", "--every", "often"), /--every is "often": use a number/)
    assertOneLine(await at("repeat", "nightly", "x", "1", "--every", "1 millis"), /every is 1 ms; use 1000/)
    assertOneLine(await at("repeat", "nightly", "x", "1"), /the schedule is missing: give either/)
    assertOneLine(await at("repeat", "nightly", "x", "--every", "1 hour"), /payload is missing/)
    assert.match((await at("stats", "nightly")).stdout, /\nrepeats +1\n/)
  })
})
