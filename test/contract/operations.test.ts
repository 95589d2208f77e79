import { describe } from "@effect/vitest"
import { inProcess, overTcp } from "./layers.ts"
import { suite } from "./operations.ts"

describe("operating a queue in this process", () => suite(inProcess))
describe("operating a queue over TCP", () => suite(overTcp))
