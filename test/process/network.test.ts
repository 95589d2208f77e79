/** `serve --network`: what it prints, and what a program elsewhere does with it. */
import { spawnSync } from "node:child_process"
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterEach, assert, describe, it } from "@effect/vitest"
import { makeCertificate } from "../../src/auth/Certificate.ts"
import { makeSigningKey, randomBytes } from "../../src/platform/Crypto.ts"
import { assertOneLine, fixture, main, millrace, run, stopAll, temporaryFolder } from "./support.ts"

afterEach(stopAll)

const line = /^millrace:\/\/default@127\.0\.0\.1:(\d+)\/\?sha256=([0-9a-f]{64})\n$/

const serve = async (folder: string, ...args: ReadonlyArray<string>) => {
  const program = millrace(["serve", "--port", "0", ...args], { cwd: folder })
  await program.said(/listening on \S+:(\d+)/)
  await program.said(/programs elsewhere need the line below/)
  const [joined] = await program.said(/^millrace:.*\n/m)
  return { program, joined }
}

describe("serve --network", () => {
  it("prints one line, by which programs elsewhere work; the certificate is kept and is its owner's alone", async () => {
    const folder = temporaryFolder()
    const first = await serve(folder, "--network", "--advertise", "127.0.0.1", "--data", "data")
    const [, , fingerprint] = line.exec(first.joined) ?? []
    assert.isDefined(fingerprint, first.joined)
    const at = { cwd: folder }
    const to = ["--join", first.joined.trim()]
    assert.strictEqual((await run(["put", "q", "1", "--create", ...to], at)).code, 0)
    const others = ["--address", "127.0.0.1:1", "--address", first.joined.trim()]
    assert.strictEqual((await run(["get", "q", ...others], at)).stdout, "1\n")
    const mode = statSync(join(folder, "data/manager.pem")).mode & 0o777
    assert.strictEqual(mode, 0o600)
    first.program.child.kill("SIGTERM")
    assert.strictEqual((await first.program.ended()).code, 0)

    const again = await serve(folder, "--network", "--advertise", "127.0.0.1", "--data", "data")
    assert.strictEqual(line.exec(again.joined)?.[2], fingerprint)
    again.program.child.kill("SIGTERM")
    await again.program.ended()

    chmodSync(join(folder, "data/manager.pem"), 0o644)
    const open = await run(["serve", "--network", "--port", "0", "--data", "data"], at)
    assert.strictEqual(open.code, 1)
    assertOneLine(open, /manager\.pem is of mode 0644: others may not read or write it: chmod 600/)
  })

  it("takes a certificate of one's own, and says which flags do not go together", async () => {
    const folder = temporaryFolder()
    const { certificate, privateKey } = makeCertificate({
      key: makeSigningKey(),
      hosts: ["127.0.0.1"],
      serial: randomBytes(16),
      now: Date.now()
    })
    writeFileSync(join(folder, "cert.pem"), certificate)
    writeFileSync(join(folder, "key.pem"), privateKey, { mode: 0o600 })
    writeFileSync(join(folder, "open.pem"), privateKey, { mode: 0o644 })
    const { joined } = await serve(folder, "--memory", "--tls-cert", "cert.pem", "--tls-key", "key.pem")
    const [, port = ""] = line.exec(joined) ?? []
    const by = ["stats", "--json", "--port", port, "--tls-ca", "cert.pem"]
    assert.strictEqual((await run(by, { cwd: folder })).code, 0)
    const cases: ReadonlyArray<readonly [ReadonlyArray<string>, RegExp]> = [
      [["--tls-cert", "cert.pem"], /--tls-cert is given alone: give --tls-key as well/],
      [["--tls-key", "key.pem"], /--tls-key is given alone: give --tls-cert as well/],
      [["--tls-cert", "none.pem", "--tls-key", "key.pem"], /--tls-cert is none\.pem: the file cannot be read/],
      [
        ["--tls-cert", "cert.pem", "--tls-key", "open.pem"],
        /--tls-key is open\.pem, which is of mode 0644: .*chmod 600/
      ],
      [["--tls-cert", "key.pem", "--tls-key", "key.pem"], /tls is .*: give a certificate and its private key/],
      [["--tls-ca", "cert.pem"], /--tls-ca is cert\.pem: add --network/],
      [["--advertise", "x"], /--advertise is x: add --network/],
      [["--network", "--insecure-network"], /--insecure-network is given beside --network/],
      [["--network", "--advertise", "a_b"], /--advertise is "a_b": name a host/],
      [["--network", "--advertise", "a:0"], /--advertise is "a:0": name a host/]
    ]
    const ends = await Promise.all(
      cases.map(([args]) => run(["serve", "--memory", "--port", "0", ...args], { cwd: folder }))
    )
    for (const [i, end] of ends.entries()) {
      assert.strictEqual(end.code, 1, end.stderr)
      assertOneLine(end, cases[i]![1])
    }
  }, 120_000)

  const isolated = ["--user", "--map-root-user", "--net"]
  const possible = spawnSync("unshare", [...isolated, "true"]).status === 0
  if (!possible) console.log("two networks: not run, this machine does not let a test make network namespaces")
  it("of a crawl wants a key, and wrong flags leave no unfinished crawl behind", async () => {
    const folder = temporaryFolder()
    const crawl = ["crawl", "http://127.0.0.1:9/", "--out", "o", "--network"]
    const without = await run(crawl, { cwd: folder, env: { MILLRACE_AUTHKEY: undefined } })
    assertOneLine(without, /--network is given without a key: .*--authkey-file/)
    const both = await run([...crawl, "--insecure-network"], { cwd: folder })
    assertOneLine(both, /--insecure-network is given beside --network/)
    assert.isFalse(existsSync(join(folder, "o/.millrace/crawl.json")))
  }, 60_000)

  it("advertises another port where one is reached from outside", async () => {
    const { joined } = await serve(
      temporaryFolder(),
      "--memory",
      "--network",
      "--advertise",
      "crawler.example.org:9001"
    )
    assert.match(joined, /^millrace:\/\/default@crawler\.example\.org:9001\/\?sha256=[0-9a-f]{64}\n$/)
  })

  it.skipIf(!possible)(
    "a program in another network needs that line and the secret, and nothing else",
    (context) => {
      const folder = temporaryFolder()
      const script = [fixture("twoNetworks.sh"), process.execPath, main, folder]
      const env = { ...process.env, MILLRACE_AUTHKEY: undefined }
      const { status, stderr, stdout } = spawnSync("unshare", [...isolated, "sh", ...script], {
        encoding: "utf8",
        timeout: 90_000,
        env
      })
      if (status === 77) return context.skip(stderr)
      assert.strictEqual(status, 0, stderr)
      assert.match(stdout, /^"from another machine"\nmillrace:\/\/default@10\.77\.0\.1:\d+\/\?sha256=[0-9a-f]{64}\n$/)
      assert.notInclude(readFileSync(join(folder, "log"), "utf8"), "WARN  login")
    },
    100_000
  )
})
