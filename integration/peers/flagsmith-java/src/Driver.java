import com.fasterxml.jackson.databind.JsonNode;
import com.flagsmith.FlagsmithClient;
import com.flagsmith.config.FlagsmithConfig;
import com.flagsmith.models.BaseFlag;
import com.flagsmith.models.Flags;
import com.flagsmith.models.TraitConfig;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import okhttp3.Response;

/**
 * A program that uses Flagsmith's client for the JVM as a server would, for integration/peers.
 *
 * <pre>java Driver API_URL KEY local|remote REFRESH_SECONDS [SECONDS]</pre>
 *
 * Its lines are those of integration/node/flagsmith.mjs, and one more question: {"answers":true}, answered by
 * {"answers":[status,…]} of all answers so far. Ends when standard input is closed, or after SECONDS (240).
 */
public final class Driver {
    /** The statuses of all answers: the client tells that it got no flags, not why. */
    private static final List<Integer> ANSWERS = new ArrayList<>();

    private static volatile int last = 200;

    public static void main(String[] arguments) throws Exception {
        FlagsmithClient client =
                FlagsmithClient.newBuilder().setApiKey(arguments[1]).withConfiguration(configuration(arguments)).build();
        Lines.answer(arguments.length > 4 ? Long.parseLong(arguments[4]) : 240, question -> answer(client, question));
    }

    private static FlagsmithConfig configuration(String[] arguments) {
        return FlagsmithConfig.newBuilder()
                .baseUri(arguments[0])
                .withLocalEvaluation(arguments[2].equals("local"))
                .withEnvironmentRefreshIntervalSeconds(Integer.valueOf(arguments[3]))
                .addHttpInterceptor(chain -> {
                    Response response = chain.proceed(chain.request());
                    synchronized (ANSWERS) {
                        ANSWERS.add(last = response.code());
                    }
                    return response;
                })
                .build();
    }

    private static Map<String, Object> answer(FlagsmithClient client, JsonNode question) {
        if (question.has("answers")) {
            synchronized (ANSWERS) {
                return Map.of("answers", List.copyOf(ANSWERS));
            }
        }
        try {
            Map<String, Object> states = new LinkedHashMap<>();
            for (BaseFlag flag : flags(client, question).getAllFlags()) {
                List<Object> state = new ArrayList<>();
                state.add(flag.getEnabled());
                state.add(flag.getValue());
                states.put(flag.getFeatureName(), state);
            }
            return Map.of("flags", states);
        } catch (Exception refused) {
            return last == 200 ? Map.of("error", String.valueOf(refused)) : Map.of("status", last);
        }
    }

    private static Flags flags(FlagsmithClient client, JsonNode question) throws Exception {
        if (!question.has("identifier")) {
            return client.getEnvironmentFlags();
        }
        Map<String, Object> traits = new HashMap<>();
        question.path("traits").fields().forEachRemaining(trait -> traits.put(trait.getKey(), value(trait.getValue())));
        boolean isTransient = question.path("transient").asBoolean();
        return client.getIdentityFlags(question.get("identifier").asText(), traits, isTransient);
    }

    /** A trait's value, or that of {"value":…,"transient":true}. */
    private static Object value(JsonNode given) {
        boolean isConfigured = given.isObject() && given.has("transient");
        Object value = Lines.JSON.convertValue(isConfigured ? given.get("value") : given, Object.class);
        return isConfigured ? new TraitConfig(value, given.get("transient").asBoolean()) : value;
    }
}
