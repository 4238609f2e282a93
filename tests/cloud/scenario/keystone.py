"""Keystone: every kind of resource, and every outcome of a login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openstack

from stackbus.demo.recipes import REGION
from tests.cloud.catalogue import connect
from tests.cloud.scenario.run import Actor, ScenarioRun


def people(run: ScenarioRun) -> None:
    """Create the projects and users of the other sections."""
    admin = run.admin()
    identity = admin.cloud.identity
    roles = {role.name: role for role in identity.roles()}
    for name in ("alpha", "beta"):
        project = admin.do(
            "keystone.project.create",
            identity.create_project,
            name=f"{name}-{run.tag}",
            domain_id="default",
        )
        run.projects[name] = project.id
    for name, project, role_names in (
        ("alice", "alpha", ("member", "heat_stack_owner")),
        ("bob", "beta", ("member", "heat_stack_owner")),
        ("carol", "alpha", ("reader",)),
    ):
        user = admin.do(
            "keystone.user.create",
            identity.create_user,
            name=f"{name}-{run.tag}",
            password=f"{name}'s password",
            domain_id="default",
            email=f"{name}@cloud.example",
        )
        for role in role_names:
            admin.do(
                "keystone.role_assignment.create",
                identity.assign_project_role_to_user,
                run.projects[project],
                user,
                roles[role],
                id_of=_always(user.id),
            )
        run.people[name] = (user.name, f"{name}'s password", f"{project}-{run.tag}")


def _always(identifier: str) -> Callable[[Any], str]:
    return lambda _: identifier


def keystone(run: ScenarioRun) -> None:
    """Create, change, use and delete each kind of resource."""
    admin = run.admin()
    do, identity, tag = admin.do, admin.cloud.identity, run.tag
    domain = do("keystone.domain.create", identity.create_domain, name=f"domain-{tag}")
    project = do(
        "keystone.project.create",
        identity.create_project,
        name=f"project-{tag}",
        domain_id="default",
    )
    do("keystone.project.update", identity.update_project, project, description="changed")
    user = do(
        "keystone.user.create",
        identity.create_user,
        name=f"mallory-{tag}",
        password="first password",
        domain_id="default",
    )
    do("keystone.user.update", identity.update_user, user, email="mallory@cloud.example")
    do("keystone.user.update_password", identity.update_user, user, password="second password")
    group = do(
        "keystone.group.create", identity.create_group, name=f"group-{tag}", domain_id="default"
    )
    do("keystone.group.update", identity.update_group, group, description="changed")
    own_id: dict[str, Any] = {"id_of": lambda _: group.id}
    do("keystone.group.add_user", identity.add_user_to_group, user, group, **own_id)
    do("keystone.group.remove_user", identity.remove_user_from_group, user, group, **own_id)
    role = do("keystone.role.create", identity.create_role, name=f"role-{tag}")
    do("keystone.role.update", identity.update_role, role, description="changed")
    own_id = {"id_of": lambda _: role.id}
    grant = (project, user, role)
    do("keystone.role_assignment.create", identity.assign_project_role_to_user, *grant, **own_id)
    do(
        "keystone.role_assignment.delete",
        identity.unassign_project_role_from_user,
        *grant,
        **own_id,
    )
    region = do("keystone.region.create", identity.create_region, id=f"region-{tag}")
    do("keystone.region.update", identity.update_region, region, description="changed")
    service = do(
        "keystone.service.create", identity.create_service, name=f"s-{tag}", type=f"type-{tag}"
    )
    do("keystone.service.update", identity.update_service, service, description="changed")
    endpoint = do(
        "keystone.endpoint.create",
        identity.create_endpoint,
        service_id=service.id,
        interface="public",
        url="http://127.0.0.1:1/",
        region_id=region.id,
    )
    do("keystone.endpoint.update", identity.update_endpoint, endpoint, url="http://127.0.0.1:2/")
    do("keystone.endpoint.delete", identity.delete_endpoint, endpoint)
    do("keystone.service.delete", identity.delete_service, service)
    do("keystone.region.delete", identity.delete_region, region)
    blob = f'{{"access": "a-{tag}", "secret": "an ec2 secret"}}'
    credential = do(
        "keystone.credential.create",
        identity.create_credential,
        user_id=user.id,
        project_id=project.id,
        type="ec2",
        blob=blob,
    )
    do("keystone.credential.delete", identity.delete_credential, credential)
    policy = do(
        "keystone.policy.create",
        identity.create_policy,
        blob="{}",
        type="application/json",
        user_id=user.id,
        project_id=project.id,
    )
    do("keystone.policy.delete", identity.delete_policy, policy)
    _application_credential(run)
    _trust(run)
    _fail_logins(run, admin, user)
    do("keystone.user.disable", identity.update_user, user, is_enabled=False)
    _fail_login(run, admin, "disabled", user.name, "second password")
    do("keystone.role.delete", identity.delete_role, role)
    do("keystone.group.delete", identity.delete_group, group)
    do("keystone.user.delete", identity.delete_user, user)
    # A resource that was deleted before.
    do(
        "keystone.user.delete_gone",
        identity.delete_user,
        user,
        ignore_missing=False,
        refused=True,
    )
    do("keystone.project.disable", identity.update_project, project, is_enabled=False)
    do("keystone.project.delete", identity.delete_project, project)
    do("keystone.domain.disable", identity.update_domain, domain, is_enabled=False)
    do("keystone.domain.delete", identity.delete_domain, domain)
    carol = run.person("carol")
    carol.do(
        "keystone.user.create_forbidden",
        carol.cloud.identity.create_user,
        name=f"evil-{tag}",
        password="a password",
        refused=True,
    )


def _application_credential(run: ScenarioRun) -> None:
    alice = run.person("alice")
    identity = alice.cloud.identity
    resource = alice.do(
        "keystone.application_credential.create",
        identity.create_application_credential,
        user=alice.user_id,
        name=f"robot-{run.tag}",
        roles=[{"name": "member"}],
    )
    robot = openstack.connect(
        auth_url=run.home.url("keystone", "/v3"),
        auth_type="v3applicationcredential",
        application_credential_id=resource.id,
        application_credential_secret=resource.secret,
        region_name=REGION,
        load_yaml_config=False,
        load_envvars=False,
    )
    Actor(run, "alice", robot, "keystone.token.create_application_credential")
    alice.do(
        "keystone.application_credential.delete",
        identity.delete_application_credential,
        alice.user_id,
        resource,
        id_of=lambda _: resource.id,
    )


def _trust(run: ScenarioRun) -> None:
    alice, bob = run.person("alice"), run.person("bob")
    body = {
        "trust": {
            "trustor_user_id": alice.user_id,
            "trustee_user_id": bob.user_id,
            "project_id": alice.project_id,
            "impersonation": True,
            "roles": [{"name": "member"}],
        }
    }
    resource = alice.do(
        "keystone.trust.create", alice.rest, "identity", "POST", "/OS-TRUST/trusts", body
    )
    path = f"/OS-TRUST/trusts/{resource['trust']['id']}"
    alice.do("keystone.trust.delete", alice.rest, "identity", "DELETE", path)


def _fail_logins(run: ScenarioRun, admin: Actor, user: object) -> None:
    """Fail logins in every way; three wrong passwords lock the account."""
    name = getattr(user, "name", "")
    for _ in range(3):
        _fail_login(run, admin, "wrong_password", name, "a guess")
    _fail_login(run, admin, "locked", name, "second password")
    _fail_login(run, admin, "unknown_user", f"nobody-{run.tag}", "a guess")
    bob = run.people["bob"]
    _fail_login(run, admin, "foreign_project", bob[0], bob[1], f"alpha-{run.tag}")
    token = run.person("bob").cloud.auth_token
    own_id: dict[str, Any] = {"id_of": lambda _: None}
    headers: dict[str, Any] = {"X_Subject_Token": token}
    admin.do(
        "keystone.token.revoke",
        admin.rest,
        "identity",
        "DELETE",
        "/auth/tokens",
        **headers,
        **own_id,
    )


def _fail_login(
    run: ScenarioRun, admin: Actor, reason: str, user: str, password: str, project: str = ""
) -> None:
    connection = connect(run.home, user, password, **({"project_name": project} if project else {}))

    def login() -> None:
        # Keystone answers under the request id of this call.
        connection.session.session.headers.update(admin.cloud.session.session.headers)
        connection.session.session.hooks = admin.cloud.session.session.hooks
        connection.authorize()

    admin.do(f"keystone.token.create_{reason}", login, refused=True, id_of=lambda _: None)
