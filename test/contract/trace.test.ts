/** Trace context on its way: from who puts a task, over the manager, to who handles it, and to the children of that. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { TaskQueue, Worker } from "millrace"
import { overTcp } from "./layers.ts"

const Parents = TaskQueue.make("parents", { payload: Schema.Int, result: Schema.NullOr(Schema.String) })
const Children = TaskQueue.make("children", { payload: Schema.Int, result: Schema.NullOr(Schema.String) })

/** A tracer that keeps what it is given; its spans are not Effect's own. */
const recording = () => {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span: (options) => {
      const { annotations, attributes, events, kind, links, name, parent, sampled, spanId, status, traceId } =
        Tracer.nativeTracer.span(options) as Tracer.NativeSpan
      const about = { annotations, attributes, events, kind, links, name, parent, sampled, spanId, status, traceId }
      const nothing = (): void => {}
      const span = {
        _tag: "Span",
        ...about,
        end: nothing,
        attribute: nothing,
        event: nothing,
        addLinks: nothing
      } as const
      spans.push(span)
      return span
    }
  })
  return { spans, layer: Layer.succeed(Tracer.Tracer, tracer) }
}

const traceparent = /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/

const program = Effect.gen(function* () {
  yield* Parents.put(1).pipe(Effect.withSpan("one"))
  yield* Parents.putAll([2, 3]).pipe(Effect.withSpan("many"))
  yield* Parents.put(4)
  const parents = yield* Parents.outcomes.pipe(Stream.take(4), Stream.runCollect)
  const children = yield* Children.outcomes.pipe(Stream.take(4), Stream.runCollect)
  const traces = (outcomes: typeof parents | typeof children): ReadonlyArray<string | null> =>
    Array.from(outcomes, (outcome) => (outcome._tag === "Success" ? outcome.result : null))
  return { parents: traces(parents), children: traces(children) }
})

const workers = Layer.merge(
  Worker.layer(Parents, (task) => Effect.as(task.put(Children, task.payload), task.trace ?? null), { concurrency: 1 }),
  Worker.layer(Children, (task) => Effect.succeed(task.trace ?? null), { concurrency: 1 })
)

describe("trace context", () => {
  it.live("goes from the span that puts to the handler's, and on to the children's", () => {
    const { layer, spans } = recording()
    return Effect.gen(function* () {
      // Opened first, so that readers begin at their first put.
      yield* Parents.size
      yield* Children.size
      const { children, parents } = yield* program.pipe(Effect.provide(workers))
      const one = spans.find(({ name }) => name === "one")!
      const many = spans.find(({ name }) => name === "many")!
      for (const trace of parents.slice(0, 3)) assert.match(trace ?? "none", traceparent)
      assert.include(parents[0]!, `-${one.traceId}-${one.spanId}-`)
      assert.include(parents[1]!, `-${many.traceId}-${many.spanId}-`)
      assert.strictEqual(parents[2], parents[1])
      assert.isNull(parents[3], "no span, no trace")
      // Each handler ran in a span of the trace, and its child belongs to that span.
      const handlers = spans.filter(({ name }) => name === "process parents")
      assert.deepStrictEqual(
        handlers.map(({ parent }) => Option.getOrThrow(parent).spanId),
        [one.spanId, many.spanId, many.spanId]
      )
      for (const [i, handler] of handlers.entries()) {
        assert.strictEqual(handler.kind, "consumer")
        assert.include(children[i]!, `-${handler.traceId}-${handler.spanId}-`)
      }
      assert.strictEqual(handlers[0]!.traceId, one.traceId)
      assert.isNull(children[3])
    }).pipe(Effect.provide(overTcp), Effect.provide(layer))
  })

  it.live("is passed on by a worker that does not trace, to the children of what it handles", () => {
    const external = Tracer.externalSpan({ traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "b7ad6b7169203331" })
    return Effect.gen(function* () {
      yield* Children.size
      yield* Parents.put(1).pipe(Effect.provideService(Tracer.ParentSpan, external))
      const [child] = yield* Children.outcomes.pipe(Stream.take(1), Stream.runCollect, Effect.provide(workers))
      const trace = `00-${external.traceId}-${external.spanId}-01`
      assert.strictEqual(child?._tag === "Success" && child.result, trace)
    }).pipe(Effect.provide(overTcp))
  })

  it.live("that is none, too long, or of a tracer that is switched off, is not sent", () =>
    Effect.gen(function* () {
      const wrong = [
        { traceId: "z".repeat(400), spanId: "b7ad6b7169203331" },
        { traceId: "0af7651916cd43dd8448eb211c80319c", spanId: "" },
        { traceId: "0AF7651916CD43DD8448EB211C80319C", spanId: "b7ad6b7169203331" }
      ]
      for (const ids of wrong) {
        yield* Parents.put(1).pipe(Effect.provideService(Tracer.ParentSpan, Tracer.externalSpan(ids)))
      }
      yield* Parents.put(1).pipe(Effect.withSpan("off"), Effect.withTracerEnabled(false))
      const parents = yield* Parents.outcomes.pipe(Stream.take(4), Stream.runCollect, Effect.provide(workers))
      for (const outcome of parents) assert.isNull(outcome._tag === "Success" ? outcome.result : "failed")
    }).pipe(Effect.provide(overTcp))
  )

  it.live("is no cost where nobody traces: Effect's own spans, which go nowhere, are not sent", () =>
    Effect.gen(function* () {
      yield* Parents.size
      yield* Children.size
      const { children, parents } = yield* program.pipe(Effect.withSpan("all"), Effect.provide(workers))
      assert.deepStrictEqual(
        [...parents, ...children],
        Array.from({ length: 8 }, () => null)
      )
    }).pipe(Effect.provide(overTcp))
  )
})
