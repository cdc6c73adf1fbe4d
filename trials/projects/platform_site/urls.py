"""What is served."""

from django.conf import settings
from django.contrib import admin
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse, JsonResponse
from django.urls import path
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework_simplejwt.views import TokenObtainPairView

from .tasks import fail, report


def reported(request, name):
    """Have the worker report; wait for what it says."""
    result = report.delay(name)
    return JsonResponse({"users": result.get(timeout=30)})


def failing(request):
    """Fail in a task, and in the view, with a secret among the local variables."""
    fail.delay()
    payment = {"key": settings.PAYMENT_KEY}
    raise RuntimeError(f"no payment by {len(payment)} keys")


def counted(request):
    """Count visits in the cache, and look at the database."""
    cache.add("visits", 0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user")
        (user,) = cursor.fetchone()
    return HttpResponse(f"visit {cache.incr('visits')} {user}")


@api_view(["GET"])
@permission_classes([IsAuthenticated])
def whoami(request):
    """Say who has the token."""
    return Response({"user": request.user.get_username()})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("token/", TokenObtainPairView.as_view()),
    path("whoami/", whoami),
    path("counted/", counted),
    path("failing/", failing),
    path("report/<slug:name>/", reported),
]
