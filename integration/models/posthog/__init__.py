"""PostHog, as the tests need it.

`endpoint` has the rules of its answers and `bodies` their texts. `writers` puts values into Redis as its
programs do, `sdks` are the real SDKs, `customers` keep receipts. `front` has stacks in front of an unchanged
PostHog, `watching` those whose publisher watches its database, `whole` reads what that publisher wrote.
`kept_bodies` has teams whose payloads workers keep, `usage` a stack whose counts can be held on their way.
"""
