"""The page of a new study: its form, and what becomes of what was written into it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from highnoon.shared.domain.errors import InvalidInput, Problem, StudyConflict
from highnoon.webui import forms
from highnoon.webui.desk import Desk, desk_of
from highnoon.webui.formats import segment
from highnoon.webui.rendering import form_fields, shown

router = APIRouter(include_in_schema=False)

Here = Annotated[Desk, Depends(desk_of)]
Sent = Annotated[dict[str, str], Depends(form_fields)]


@router.get("/hpo/new")
def new_study(request: Request, desk: Here) -> Response:
    """The form of a new study, or of one like another."""
    like = request.query_params.get("like")
    form = forms.StudyForm(values={"n_trials": "50", "direction": "minimize"})
    if like is not None:
        study = desk.library.study(like)
        if study.record is not None:
            form = forms.form_of(study.spec, name=f"{study.name}-2")
    return _form(request, desk, form)


@router.post("/hpo/new")
def create_study(request: Request, desk: Here, sent: Sent) -> Response:
    """Checks the form and submits it; with mistakes it is shown again, with a message beside each field."""
    form = forms.read_form(sent)
    if sent.get("action") == "add":
        return _form(request, desk, forms.with_row(form))
    problems = forms.duplicates(form)
    try:
        if problems:
            raise InvalidInput("study", problems)
        submission = desk.steering.create(forms.written(form))
    except InvalidInput as invalid:
        return _form(request, desk, forms.with_problems(form, invalid.problems), status=422)
    except StudyConflict as conflict:
        problem = Problem(key="name", message=str(conflict))
        return _form(request, desk, forms.with_problems(form, [problem]), status=409)
    return RedirectResponse(f"/hpo/studies/{segment(submission.spec.name)}", status_code=303)


def _form(request: Request, desk: Desk, form: forms.StudyForm, *, status: int = 200) -> Response:
    studies = desk.library.studies()
    allowed = desk.steering.allowed
    context = {"form": form, "objectives": allowed.suggestions(studies), "folders": allowed.folders(studies)}
    choices = {"samplers": forms.SAMPLERS, "pruners": forms.PRUNERS, "directions": forms.DIRECTIONS}
    more = {"kinds": forms.SPACE_KINDS, "patterns": desk.settings.objectives, "has_ledger": desk.library.has_ledger()}
    return shown(request, "new.html", {**context, **choices, **more}, status=status)
