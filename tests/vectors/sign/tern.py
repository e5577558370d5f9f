"""Verifies deliveries with @hookflo/tern, which reads a signature's form from a description."""

from npm import call

CODE = """
import tern from "@hookflo/tern";
const [config, deliveries] = args;
const right = [];
for (const { headers, body, secret, now } of deliveries) {
    Date.now = () => now * 1000;
    const request = new Request("https://hooks.example.com/", { method: "POST", headers, body });
    const verifier = tern.createAlgorithmVerifier(secret, config, "custom", 300);
    right.push((await verifier.verify(request)).isValid);
}
give(right);
"""


class Checks:
    """Deliveries that must be right, checked together."""

    def __init__(self, **config):
        self.config, self.deliveries = config, []

    def add(self, headers, raw, secret, now):
        """A delivery that must be right."""
        self.deliveries.append({"headers": headers, "body": raw.decode(), "secret": secret, "now": now})

    def run(self):
        """Fails if one is not right, or if one is right under another secret."""
        assert all(call(CODE, self.config, self.deliveries))
        others = [{**delivery, "secret": delivery["secret"] + "x"} for delivery in self.deliveries]
        assert not any(call(CODE, self.config, others))
