"""Users by id or email, and what they are in a project."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from orchestrator.db.models import ApiKey, Membership, User
from orchestrator.errors import InvalidRequestError, NotFoundError
from orchestrator.tenants.access import Role, role_of

SERVICE_ACCOUNT = "service_account"
_MEMBER_ROLES = {
    "reader": Role.READER,
    "submitter": Role.SUBMITTER,
    "admin": Role.ADMIN,
    "member": Role.SUBMITTER,  # OpenAI's word
    "owner": Role.ADMIN,  # OpenAI's owner of a project, who is none of the organisation
}


def member_role(word: str) -> Role:
    """Our role for a word of the contract's ``MemberRole``."""
    return _MEMBER_ROLES[word]


def find_user(session: Session, organization_id: str, user_id: str, *, param: str | None = None) -> User:
    """A user of the organisation, who stays until the transaction ends; ``NotFoundError`` where there is none."""
    user = session.get(User, user_id, with_for_update={"read": True, "key_share": True})
    if user is None or user.organization_id != organization_id:
        raise NotFoundError(f"there is no user {user_id!r}: GET /v1/organization/users lists them", param=param)
    return user


def find_user_by(session: Session, organization_id: str, *, user_id: str | None, email: str | None) -> User:
    """A user by exactly one of id and email."""
    if (user_id is None) == (email is None):
        raise InvalidRequestError("name the user by user_id or by email, one of them", param="user_id")
    if user_id is not None:
        return find_user(session, organization_id, user_id, param="user_id")
    found = session.scalar(select(User.id).where(User.organization_id == organization_id, User.email == email))
    if found is None:
        raise NotFoundError(
            f"nobody of this organization has the email {email}: an owner adds them with POST /v1/organization/users",
            param="email",
        )
    return find_user(session, organization_id, found, param="email")


def role_in_project(session: Session, user: User, project_id: str) -> Role | None:
    """What a user is in a project of the organisation; None for who is no member and no owner."""
    membership = session.get(Membership, (project_id, user.id), populate_existing=True)
    return role_of(membership.role if membership else None, is_owner=user.is_owner, is_operator=user.is_operator)


def delete_user(session: Session, user: User) -> None:
    """Remove a user with memberships and keys; jobs and the audit log keep the id."""
    session.execute(delete(Membership).where(Membership.user_id == user.id))
    session.execute(delete(ApiKey).where(ApiKey.user_id == user.id))
    session.delete(user)
