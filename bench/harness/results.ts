/** Results as a system brings them to its master: of a pass, or of probes. */
import { ExactlyOnce } from "./exactly-once.ts"
import type { Result } from "./handler.ts"
import { Probing } from "./probes.ts"

export class Results {
  readonly check = new ExactlyOnce()
  readonly probing = new Probing()

  readonly take = (result: Result): void => {
    const { startedAtMs, url } = result
    if (startedAtMs === undefined) this.check.take(result)
    else this.probing.take({ url, startedAtMs })
  }

  readonly fail = (fault: string): void => {
    this.check.fail(fault)
    this.probing.fail(fault)
  }
}
