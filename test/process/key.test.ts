/** `millrace key`, and `millrace serve --credentials`: who may do what, from a file that only its owner may look into. */
import { appendFileSync, chmodSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { afterAll } from "vitest"
import * as Client from "../../src/Client.ts"
import * as TaskQueue from "../../src/TaskQueue.ts"
import { asClient, assertOneLine, type Ended, key, run, serve, stopAll, temporaryFolder } from "./support.ts"

afterAll(stopAll)

const make = (file: string, name: string, ...args: ReadonlyArray<string>): Promise<Ended> =>
  run(["key", "new", name, ...args, "--file", file])

/** A file with these credentials, and their keys. */
const made = async (
  ...credentials: ReadonlyArray<readonly [name: string, ...args: ReadonlyArray<string>]>
): Promise<{ readonly file: string; readonly keys: Readonly<Record<string, string>> }> => {
  const file = join(temporaryFolder(), "credentials")
  const keys: Record<string, string> = {}
  for (const [name, ...args] of credentials) {
    const ended = await make(file, name, ...args)
    assert.strictEqual(ended.code, 0, ended.stderr)
    keys[name] = ended.stdout.trim()
  }
  return { file, keys }
}

describe("millrace serve --credentials", () => {
  it("lets each do what its roles say, and says what it takes; no key is in the file or in what is printed (M19)", async () => {
    const { file, keys } = await made(
      ["master", "--role", "producer", "--queues", "images*"],
      ["dash", "--role", "observer", "--queues", "*"],
      ["root", "--role", "admin", "--queues", "*", "--objects", "*"]
    )
    const { port, program } = await serve(["--credentials", file])
    const env = { MILLRACE_AUTHKEY: keys["master"] }
    assertOneLine(
      await run(["put", "pages", "1", "--create", "--user", "master", "--port", String(port)], { env }),
      /Not permitted: open of queue "pages"; a credential needs the role producer, worker, observer or admin for that name\.$/
    )
    const images = TaskQueue.make("images", { payload: Schema.Int })
    const as = <A, E>(user: string, effect: Effect.Effect<A, E, Client.Client>): Promise<A> => {
      const client = Client.layerTcp({ port, auth: { user, key: keys[user] ?? key } })
      return Effect.runPromise(effect.pipe(Effect.provide(client), Effect.scoped))
    }
    const refusal = <A, E extends { readonly message: string }>(
      user: string,
      effect: Effect.Effect<A, E, Client.Client>
    ): Promise<string> =>
      as(
        user,
        Effect.map(Effect.flip(effect), ({ message }) => message)
      )
    await as("master", images.put(1))
    assert.strictEqual(await as("dash", images.size), 1)
    assert.strictEqual((await as("dash", images.browse({ payloads: false }))).tasks.length, 1)
    assert.match(
      await refusal("master", images.get({ timeout: 0 })),
      /get on queue "images"; .* the role worker or admin/
    )
    assert.match(await refusal("dash", images.browse()), /browse with payloads on queue "images"; .* the role admin/)
    assert.match(await refusal("dash", images.pause()), /pause on queue "images"; .* the role admin/)
    await as("root", images.pause())
    // The key of the environment may do everything elsewhere; beside a file it is not let in unless a flag names it.
    const failed = await Effect.runPromise(
      Effect.flip(Effect.scoped(Layer.build(Client.layerTcp({ port, auth: { key } }))))
    )
    assert.strictEqual(failed._tag, "AuthenticationFailed")
    program.kill("SIGTERM")
    const { stderr } = await program.ended()
    assert.match(stderr, /not permitted \(peer: 127\.0\.0\.1:\d+, credential: master, action: open of queue "pages"\)/)
    assert.match(stderr, /credential: dash, action: browse with payloads on queue "images"/)
    for (const secret of [...Object.values(keys), key]) {
      assert.notInclude(readFileSync(file, "utf8"), secret)
      assert.notInclude(stderr, secret)
    }
  }, 120_000)

  it("has the key of a flag beside the file, which may do everything", async () => {
    const { file } = await made(["master", "--role", "producer", "--queues", "images*"])
    const { port } = await serve(["--credentials", file, "--authkey-env", "MILLRACE_AUTHKEY"])
    const any = TaskQueue.make("any", { payload: Schema.Int })
    await asClient(port, Effect.andThen(any.put(1), any.pause()))
  }, 60_000)

  it("refuses a file that others may read, that has a key or a fault, or that is not there, with file, line and remedy (M6)", async () => {
    const { file } = await made(["master", "--role", "producer", "--queues", "images*"])
    const refused = (): Promise<Ended> => run(["serve", "--port", "0", "--memory", "--credentials", file])
    chmodSync(file, 0o644)
    assertOneLine(await refused(), new RegExp(`${file} is of mode 0644: others may not .*: chmod 600 ${file}\\.$`))
    assertOneLine(await make(file, "b", "--role", "worker", "--queues", "*"), /is of mode 0644: .*chmod 600/)
    assertOneLine(await run(["key", "list", "--file", file]), /is of mode 0644: .*chmod 600/)
    assert.strictEqual(statSync(file).mode & 0o777, 0o644)
    chmodSync(file, 0o600)
    const whole = readFileSync(file, "utf8")
    const secret = "tell-nobody-0123456789"
    appendFileSync(file, `${JSON.stringify({ name: "b", key: secret, roles: [] })}\n`)
    const plain = await refused()
    assertOneLine(plain, new RegExp(`${file}, line 2: key is a plain key: put the verifier there`))
    assert.notInclude(plain.stderr, secret)
    writeFileSync(file, `${whole}${JSON.stringify({ name: "\u001b[31mred\u202e\r", roles: [] })}\n`)
    assertOneLine(await refused(), /line 2: name is "\\u001b\[31mred\\u202e\\u000d": use 1 to 200 characters/)
    writeFileSync(file, `# nobody\n`)
    assertOneLine(await refused(), /--credentials is \S+, which has none: add one: millrace key new NAME/)
    const missing = await run(["serve", "--memory", "--credentials", `${file}.none`])
    assertOneLine(missing, /credentials\.none is not there: check the path and its rights\.$/)
  }, 120_000)
})

describe("millrace key", () => {
  it("new prints a key once and adds its verifier to a file of mode 0600; list shows who is in it", async () => {
    const { file, keys } = await made(
      ["w1", "--role", "worker", "--queues", "images*,pages", "--objects", "seen"],
      ["both", "--role", "observer,producer", "--queues", "*", "--objects", "*"]
    )
    assert.match(keys["w1"]!, /^[\w-]{43}$/)
    assert.strictEqual(statSync(file).mode & 0o777, 0o600)
    const text = await run(["key", "list", "--file", file])
    assert.strictEqual(
      text.stdout,
      "w1  worker queues images*,pages objects seen\nboth  observer queues *; producer queues * objects *\n"
    )
    const json = await run(["key", "list", "--file", file, "--json"])
    assert.deepStrictEqual(JSON.parse(json.stdout.split("\n")[0]!), {
      name: "w1",
      roles: [{ role: "worker", queues: ["images*", "pages"], objects: ["seen"] }]
    })
    const before = readFileSync(file, "utf8")
    assertOneLine(
      await make(file, "w1", "--role", "admin", "--queues", "*"),
      /NAME is "w1", which the file has: choose/
    )
    assert.strictEqual(readFileSync(file, "utf8"), before)
  }, 60_000)

  it("new without a file prints the line after the key; verifier prints that of a key that is there", async () => {
    const [first, second] = (await run(["key", "new", "w1", "--role", "worker", "--queues", "*"])).stdout.split("\n")
    assert.match(first!, /^[\w-]{43}$/)
    const { name, roles, verifier } = JSON.parse(second!)
    assert.deepStrictEqual([name, roles], ["w1", [{ role: "worker", queues: ["*"] }]])
    assert.match(verifier, /^SCRAM-SHA-256\$4096:/)
    const file = join(temporaryFolder(), "key")
    writeFileSync(file, `${first}\n`, { mode: 0o600 })
    for (const args of [
      ["--authkey-file", file],
      ["--authkey-env", "OTHER"]
    ]) {
      const ended = await run(["key", "verifier", ...args], { env: { OTHER: first } })
      assert.match(ended.stdout, /^SCRAM-SHA-256\$4096:\S+\n$/, ended.stderr)
    }
    assertOneLine(
      await run(["key", "verifier"], { env: { MILLRACE_AUTHKEY: undefined } }),
      /the key is missing: give --authkey-file FILE/
    )
  }, 60_000)

  it("refuses wrong names, roles and patterns, escaped, and wrong usage with its help", async () => {
    const cases: ReadonlyArray<readonly [args: ReadonlyArray<string>, fault: RegExp]> = [
      [["\u001b[31m\u202e", "--role", "worker", "--queues", "*"], /NAME is "\\u001b\[31m\\u202e": use 1 to 200/],
      [["w", "--role", "root", "--queues", "*"], /--role is "root": use producer, worker, observer, admin\.$/],
      [["w", "--role", "worker"], /--queues is missing: give --queues 'NAME\*' or --objects/],
      [["w", "--role", "worker", "--queues", "a*b"], /--queues is "a\*b": use 1 to 200 characters/],
      [
        ["w", "--role", "observer", "--queues", "a", "--objects", "b"],
        /--objects is "b": leave it out: the observer has/
      ]
    ]
    for (const [args, fault] of cases) assertOneLine(await run(["key", "new", ...args]), fault)
    for (const args of [
      ["key", "new", "w"],
      ["key", "list"]
    ]) {
      assert.strictEqual((await run(args)).code, 2, args.join(" "))
    }
  }, 60_000)
})
