"""Report an Open vSwitch agent for each host, once: ``python neutron_agent.py CONF HOST...``.

``members.py`` runs it with the Python of Neutron's environment, so it imports nothing of ours. ML2's
openvswitch driver binds ports only on hosts that have reported an agent; here no agent runs.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Report the agents by Neutron's own RPC, as neutron/agent/rpc.py does."""
    configuration, *hosts = sys.argv[1:]
    from neutron.agent import rpc as agent_rpc
    from neutron.common import config
    from neutron.conf.agent import common
    from neutron_lib import context, rpc
    from oslo_config import cfg

    config.register_common_config_options()
    common.register_agent_state_opts_helper(cfg.CONF)
    config.init(["--config-file", configuration])
    rpc.init(cfg.CONF)
    plugin = agent_rpc.PluginReportStateAPI("q-reports-plugin")
    for host in hosts:
        agent = {
            "binary": "neutron-openvswitch-agent",
            "agent_type": "Open vSwitch agent",
            "host": host,
            "topic": "N/A",
            "start_flag": True,
            "availability_zone": "nova",
            "configurations": {
                "bridge_mappings": {"public": "br-ex", "phys": "br-phys"},
                "tunnel_types": ["vxlan"],
                "tunneling_ip": "127.0.0.1",
                "datapath_type": "system",
                "ovs_capabilities": {"datapath_types": [], "iface_types": []},
                "integration_bridge": "br-int",
                "extensions": [],
                "resource_provider_bandwidths": {},
                "resource_provider_inventory_defaults": {},
                "resource_provider_hypervisors": {},
            },
        }
        plugin.report_state(context.get_admin_context_without_session(), agent, use_call=True)


if __name__ == "__main__":
    main()
