import { assert, describe, it } from "@effect/vitest"
import { Engine } from "../../../src/model/Engine.ts"
import { Session } from "../../../src/model/Session.ts"
import { Collected, definition } from "./collected.ts"

describe("readers of outcomes", () => {
  it("see what ended in a round, though the log keeps nothing of it and another reader fell behind (seed 853)", () => {
    const out = new Collected()
    const engine = new Engine({ epoch: 1, seed: 1, out })
    const queue = engine.declare(definition("q", { outcomesKept: 0 }))
    const session = engine.connect((id) => new Session(id))
    const end = (request: number): void => {
      engine.put(session, request, 0, false, 0, [new Uint8Array(1)], undefined, 0)
      engine.lease(session, request + 1, 0, 1, 0, true, 0)
      engine.commit(session, request + 2, [queue.puts], [2 ** 32 + 1], [new Uint8Array(1)], undefined, 0)
    }
    end(1)
    engine.dispatch(0)
    const behind = engine.follow(session, queue, 0, 9)
    const abreast = engine.follow(session, queue, 1, 9)
    end(4)
    engine.dispatch(0)
    assert.deepStrictEqual(
      [...out.published],
      [
        [behind.id, "gap 1"],
        [abreast.id, "1+1"]
      ]
    )
    assert.deepStrictEqual([...session.outcomeStreams.keys()], [abreast.id])
    assert.deepStrictEqual([queue.log.first, queue.log.next], [2, 2])
  })
})
